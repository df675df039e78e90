"""Frames of results: reading them, selecting rows, and what their columns are called."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tokenred.analysis.result import Result
from tokenred.analysis.study.pairing import is_store, paired_frame
from tokenred.analysis.study.store import Store
from tokenred.core.errors import DataError, InputError, did_you_mean
from tokenred.core.files import read_toml

Fixed = Mapping[str, Any] | None

DEFAULT_LEVEL = 0.95
"""Of intervals."""
_NEAR = 0.75  # of many columns, some resemble any word: scorer, cores

_TABLE = read_toml(Path(__file__).with_name("columns.toml"))
FIGURES: dict[str, dict[str, Any]] = _TABLE["figures"]
"""What is measured, and how a report shows it."""
FACTS: list[str] = _TABLE["facts"]["names"]
"""What ran, in the order of a report."""
METHODS: dict[str, str] = _TABLE["methods"]
"""The printed names of methods and scorers, in the order of their colours and markers."""
_COLUMNS: dict[str, dict[str, str]] = {**_TABLE["axes"], **FIGURES}
_BOUNDS = [name for figure in FIGURES.values() for name in figure.get("bounds", ())]


def read_frame(source: Any, level: float | None = None) -> pd.DataFrame:
    """Read a frame from any source that has one.

    Args:
        source: a pandas frame; a `Comparison`, a study, its store, or anything else with a
            ``frame``; or the path of a CSV or a store.
        level: of the paired intervals that a store is asked for; None for 0.95.

    Raises:
        DataError: if the file is missing or neither.
        StoreError: for another database.
        InputError: for any other source, or an empty frame.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        source = Store(path, readonly=True) if is_store(path) else _read_csv(path)
    if isinstance(source, Store):
        frame = paired_frame(source, level or DEFAULT_LEVEL)[0]
    elif isinstance(source, Result):
        frame = source.with_references
    else:
        frame = source if isinstance(source, pd.DataFrame) else getattr(source, "frame", source)
        frame = frame() if callable(frame) else frame
    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            "expected a pandas frame, a comparison, a study's store or the path of a CSV, got "
            f"{type(source).__name__}."
        )
    if frame.empty:
        raise InputError("expected a frame with rows, got an empty one; there is nothing to draw.")
    return frame


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        # "none" and "None" are names of graphs and settings, not gaps.
        frame = pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"])
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"expected a CSV with a header at {path}, got {reason}.") from error
    for name in frame.columns:
        # Booleans in a column with gaps are read as text.
        if set(frame[name].dropna()) <= {"True", "False"}:
            frame[name] = frame[name].map({"True": True, "False": False})
    return frame


def need(frame: pd.DataFrame, columns: Sequence[str], purpose: str) -> None:
    """Refuse a frame with missing columns, naming them and the existing ones."""
    missing = [name for name in dict.fromkeys(columns) if name not in frame]
    if missing:
        known = list(map(str, frame.columns))
        hints = [did_you_mean(name, known, _NEAR) for name in missing]
        there = "none such" if all(hints) else ", ".join(known)
        raise InputError(
            f"{purpose} needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}; the frame "
            f"has {there}.{''.join(hints)}"
        )


def choose(frame: pd.DataFrame, fixed: Fixed) -> pd.DataFrame:
    """The rows in which the columns have the given values; refused if there are none."""
    need(frame, list(fixed or ()), "fixing a value")
    for name, value in (fixed or {}).items():
        rows = frame[are_equal(frame[name], value)]
        if rows.empty:
            there = ", ".join(dict.fromkeys(show_value(v) for v in frame[name].dropna()))
            raise InputError(
                f"no row has {name}={show_value(value)}; the values of {name} are {there}."
            )
        frame = rows
    return frame


def are_equal(column: pd.Series, value: Any) -> pd.Series:
    """Which values of a column are one that a user gave."""
    return pd.Series([_same(own, value) for own in column], column.index, dtype=bool)


def _same(own: Any, value: Any) -> bool:
    if isinstance(own, str) or isinstance(value, str):
        return str(own).casefold() == str(value).casefold()
    try:
        return bool(own == value) or abs(float(own) - float(value)) <= 1e-9 * abs(float(value))
    except (TypeError, ValueError):
        return str(own) == str(value)


def axes_of(frame: pd.DataFrame) -> list[str]:
    """The columns that a study varied: those that describe neither the run nor the results.

    A study's frame has them before ``strategy``; of any other frame, unknown columns count.
    """
    names = [str(name) for name in frame.columns]
    if "strategy" in names:
        names = names[: names.index("strategy")]
    return [name for name in names if name not in {*FIGURES, *_BOUNDS, *FACTS}]


def are_references(frame: pd.DataFrame) -> pd.Series:
    """Which rows others are compared with: they say from what, but have no difference."""
    if not {"difference", "difference_from"} <= set(frame):
        return pd.Series(False, frame.index)
    return frame["difference"].isna() & frame["difference_from"].notna()


def no_cells(frame: pd.DataFrame) -> pd.Series:
    """Which rows are references only: they lack values on the axes, or have those of a cell."""
    references, axes = are_references(frame), axes_of(frame)
    if not axes:
        return pd.Series(False, frame.index)
    places = pd.Series(list(frame[axes].map(str).itertuples(index=False, name=None)), frame.index)
    beside = places.isin(set(places[~references]))
    return references & (frame[axes].isna().any(axis=1) | beside)


def about(*frames: pd.DataFrame) -> str:
    """Model and data, where all rows that have them share them."""
    words: list[str] = []
    for name in ("model", "data"):
        values = {str(v) for frame in frames if name in frame for v in frame[name].dropna()} - {""}
        words += values if len(values) == 1 else []
    return " on ".join(word.removesuffix(".safetensors") for word in words)


def has_own_methods(frame: pd.DataFrame) -> bool:
    """Whether a method is none of the recipes, and its ``alpha`` may not be GTP's."""
    return "method" in frame and not set(frame["method"].dropna()) <= {"dense", *METHODS}


def label_of(column: str, own: bool = False) -> str:
    """The label of an axis: the quantity and its unit; ``own`` as `has_own_methods` tells."""
    return _words(column, own).get("label") or name_of(column)


def symbol_of(column: str, own: bool = False) -> str:
    """The name of a column in captions and legends."""
    return _words(column, own).get("symbol") or column.replace("_", " ")


def _words(column: str, own: bool) -> dict[str, str]:
    words = _COLUMNS.get(column, {})
    return {} if own and words.get("of_recipe") else words


def name_of(column: str) -> str:
    """A column in words."""
    return str(_TABLE["facts"]["called"].get(column) or column.replace("_", " "))


def show_value(value: Any) -> str:
    """A short form of an axis value; of more than three numbers, the first and the last."""
    if isinstance(value, tuple | list):
        shown = [show_value(inner) for inner in value]
        return f"[{', '.join(shown if len(shown) <= 3 else [shown[0], '…', shown[-1]])}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
