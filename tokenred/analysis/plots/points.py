"""From a frame to the points of a figure: fixing, averaging, intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import pandas as pd
from scipy import special

from tokenred.analysis.plots import frames
from tokenred.analysis.plots.frames import Fixed, axes_of, need, read_frame, show_value, symbol_of
from tokenred.analysis.plots.looks import read_name
from tokenred.analysis.result import ALIKE, count, reference_name, span
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.values import PartOf, read

# An average over different values of these would be meaningless.
# What a reference is; it may differ from what is fixed for the others.
_NAMES = ("method", "strategy", "base")
_IDENTITY = ("model", "data", "weights", "method", "dtype", "precision")
BUDGETS = ("budget", "P", "r", "keep_rate", "schedule")
SHARES = ("top1", "top5")
CUT = ", cut at 0 and 100%"
"""Of intervals around an accuracy that would reach further."""
_ALIKE = 1.25  # intervals with widths no further apart are told by the typical one


@dataclass(frozen=True, eq=False)
class Points:
    """The points of a figure.

    Attributes:
        frame: one row per point: the requested columns, then ``value``, ``low`` and ``high`` (NaN
            if there is no interval).
        label: what the values are, for an axis.
        about: model and data, if all points share them.
        settings: the axes with a single value, "α=0.1, θ=1", and those averaged over, "mean over P
            = 3".
        intervals: the kind of interval, "95% binomial intervals"; empty if there are none.
        left_out: what could not be drawn, "left out: 2 unfinished cells"; otherwise empty.
        own: whether there are methods other than the recipes.
    """

    frame: pd.DataFrame
    label: str
    about: str
    settings: tuple[str, ...]
    intervals: str
    left_out: str
    own: bool

    def note(self, *, width: bool = False) -> str:
        """The caption; with the width of the intervals, for figures that do not draw them."""
        intervals, half = self.intervals, self._half_widths()
        if width and half.empty:
            intervals = ""
        elif width:
            alike = half.max() <= _ALIKE * half.min()
            ends = [half.median()] * 2 if alike else [half.min(), half.max()]
            intervals += f": about {span(*(f'±{end:.1f}' for end in ends))}"
        return "; ".join(part for part in (*self.settings, intervals, self.left_out) if part)

    @property
    def half_width(self) -> float | None:
        """That of a typical interval, None if there is none."""
        half = self._half_widths()
        return None if half.empty else float(half.median())

    def _half_widths(self) -> pd.Series:
        """The longer sides of the intervals (the others may end at 0 or 100%)."""
        sides = self.frame[["low", "high"]].sub(self.frame["value"], axis=0).abs()
        return sides.max(axis=1, skipna=False).dropna()


def gather(
    source: Any, by: Sequence[str], metric: str = "top1", *, fixed: Fixed = None,
    level: PartOf | None = None,
) -> Points:  # fmt: skip
    """One point for each combination of values of some columns.

    Axes of a study that are neither requested nor fixed are averaged over; a combination that was
    not run for all their values is skipped, since its average would be over different cells.

    The intervals are Student's over seeds if each point has several; otherwise those of paired
    predictions if the frame has differences from dense (``difference_low``, ``difference_high``);
    otherwise Wilson's, for the number of images. The last two are for one run; around an average
    they are conservative, since its cells share their images.

    Args:
        source: see `read_frame`.
        by: the columns; rows with a missing value in one of them are ignored.
        metric: the column with the values.
        fixed: a mapping from columns to the value that each must have.
        level: nominal coverage of the intervals; None for 0.95, or that of the paired intervals in
            the frame. Only a store can give those another level.

    Raises:
        InputError: if columns or values are missing, no row is finished, rows have several
            models, data sets or methods that are neither requested nor fixed, or the paired
            intervals have another level.
        ConfigError: for one column in two roles, or a level out of range.
    """
    read(PartOf | None, level, "level")
    by = list(by)
    if len(set(columns := [*by, metric])) < len(columns):
        raise ConfigError(f"expected different columns, got {', '.join(columns)}; choose others.")
    frame = read_frame(source, level)
    need(frame, columns, "this figure")
    if not all(isinstance(value, Number) for value in frame[metric].dropna()):
        raise InputError(f"expected a column with numbers as the metric, got {metric}.")
    frame = frames.choose(frame[~frames.no_cells(frame)], fixed).dropna(subset=by)
    for name in (*by, *axes_of(frame)):
        # A sequence of numbers, such as one α per block, counts as a name here.
        if any(isinstance(value, tuple | list) for value in frame[name]):
            frame = frame.assign(**{name: frame[name].map(show_value)})
    done = frame.dropna(subset=[metric])
    if done.empty:
        raise InputError(
            f"expected finished cells with {', '.join(columns)}, got none among "
            f"{len(frame)} rows; see the columns status and error, if the frame has them."
        )
    _refuse_mixtures(done, by)
    varied = [n for n in axes_of(done) if n not in (*by, metric) and _several(done[n])]
    groups = list(done.groupby(by, sort=False))
    averaged = [name for name in varied if any(_several(rows[name]) for _, rows in groups)]
    combinations = len(done[averaged].drop_duplicates())
    whole = [
        (key, rows)
        for key, rows in groups
        if not averaged or len(rows[averaged].drop_duplicates()) == combinations
    ]
    if not whole:
        raise InputError(
            f"no combination of {', '.join(by)} was run for all values of {', '.join(averaged)}; "
            f"fix {averaged[0]} at one value."
        )
    kind = _kind_of_interval(done, whole, metric)
    if kind == "paired" and level is not None:
        _refuse_other_level(done, level)
    level = level or frames.DEFAULT_LEVEL
    words = {
        "seeds": f"{level:.0%} intervals over seeds",
        "paired": paired_words(done),
        "binomial": f"{level:.0%} binomial intervals",
    }
    values = [(*key, *_value(rows, metric, kind, level)) for key, rows in whole]
    if metric in SHARES and any(low == 0 or high == 100 for *_, low, high in values):
        words["paired"] += CUT
    own = frames.has_own_methods(done)
    unfinished, partly = len(frame) - len(done), len(groups) - len(whole)
    lost = [count(unfinished, "unfinished cell")] * bool(unfinished)
    lost += [f"{count(partly, 'point')} not run for all of these"] * bool(partly)
    single = [
        f"{symbol_of(name, own)}={show_value(done[name].iloc[0])}"
        for name in dict.fromkeys([*axes_of(done), *(fixed or {})])
        if name not in by and not _several(done[name]) and done[name].notna().all()
    ]
    return Points(
        pd.DataFrame(values, columns=[*by, "value", "low", "high"]),
        _label(done, metric),
        frames.about(done),
        (", ".join(single), *(_varied_words(done[n], n in averaged, own) for n in varied)),
        words.get(kind, ""),
        f"left out: {', '.join(lost)}" if lost else "",
        own,
    )


def reference_values(
    source: Any, metric: str, fixed: Fixed = None, *, costs: bool = False
) -> dict[str, float]:
    """The values of the dense model and of the reference of the others, if there is one of each.

    With ``costs``, the name of a reference that costs more or less than the others says so.
    """
    frame = read_frame(source)
    if not {"method", metric} <= set(frame):
        return {}
    found = {"dense": frame[frame["method"] == "dense"]}
    others = references_of(frame, fixed)
    if others["method"].size and others["difference_from"].nunique() == 1:
        beside = _that_have(frame, fixed) if costs else others
        found[_with_cost(others, beside)] = others
    values = {name: rows[metric].dropna() for name, rows in found.items()}
    return {name: float(own.mean()) for name, own in values.items() if own.nunique() == 1}


def references_of(frame: pd.DataFrame, fixed: Fixed = None) -> pd.DataFrame:
    """The rows of references other than the dense model, where they are not fixed otherwise."""
    others = frame[frames.are_references(frame) & (frame["method"] != "dense")]
    return _that_have(others, fixed, besides=_NAMES)


def choose_beside_references(frame: pd.DataFrame, fixed: Fixed) -> pd.DataFrame:
    """As `choose`, and the references, the dense model too, where they are not fixed otherwise."""
    others = frames.are_references(frame) | (frame["method"] == "dense")
    chosen = frames.choose(frame[~others], fixed).index
    beside = _that_have(frame[others], fixed, besides=_NAMES).index
    return frame[frame.index.isin(chosen.union(beside))]


def _that_have(frame: pd.DataFrame, fixed: Fixed, *, besides: Sequence[str] = ()) -> pd.DataFrame:
    """The rows in which columns, besides some, have a value, or none."""
    for name, value in (fixed or {}).items():
        if name in frame and name not in besides:
            frame = frame[frame[name].isna() | frames.are_equal(frame[name], value)]
    return frame


def _with_cost(references: pd.DataFrame, frame: pd.DataFrame) -> str:
    name = reference_words(references)
    if "gmacs" not in frame:
        return name
    own = frame[~frame.index.isin(references.index) & (frame["method"] != "dense")]["gmacs"]
    cost = float(references["gmacs"].mean())
    alike = own.min() / ALIKE <= cost <= own.max() * ALIKE and own.max() <= own.min() * ALIKE
    return name if own.empty or alike else f"{name}\n({cost:.3g} GMACs)"


def reference_words(frame: pd.DataFrame) -> str:
    """What the differences of a frame are from."""
    names = frame["difference_from"].dropna() if "difference_from" in frame else ()
    name, several, _ = reference_name(names).partition(" at the same budget")
    return read_name(name) + several if name else "the reference"


def order(value: Any) -> tuple[int, Any]:
    """A key that sorts numbers, and puts names behind them in the order in which they come."""
    return (0, value) if isinstance(value, int | float) else (1, 0)


def wilson(percent: float, images: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval of an accuracy, in percent.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal
    of the American Statistical Association 22, 1927.

    """
    if not (0 <= percent <= 100 and images >= 1):
        raise InputError(
            f"expected a percentage of at least one image, got {percent} of {images}; the "
            "accuracies of a frame are percent."
        )
    p, z2 = percent / 100, float(special.ndtri((1 + level) / 2)) ** 2
    middle = (p + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (p * (1 - p) / images + z2 / (4 * images**2))) / (1 + z2 / images)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def _refuse_mixtures(frame: pd.DataFrame, by: Sequence[str]) -> None:
    for name in _IDENTITY:
        told = name in by or (name == "method" and "base" in by)
        if name in frame and not told and _several(frame[name]):
            there = ", ".join(dict.fromkeys(show_value(v) for v in frame[name]))
            raise InputError(
                f"the rows have several values of {name} ({there}), and an average over them "
                f"would be meaningless. Fix one, such as {name}={show_value(frame[name].iloc[0])}."
            )


def _refuse_other_level(frame: pd.DataFrame, level: float) -> None:
    levels = set(frame["difference_level"].dropna()) if "difference_level" in frame else set()
    if levels - {level}:
        raise InputError(
            f"expected the level of the paired intervals in the frame, {min(levels):g}, got "
            f"{level:g}; leave it out, or pass the store of the study, which can give others."
        )


def _kind_of_interval(frame: pd.DataFrame, groups: list[Any], metric: str) -> str:
    if "seed" in frame and all(_several(rows["seed"]) for _, rows in groups):
        return "seeds"
    paired = {"difference", "difference_low", "difference_high"} <= set(frame)
    if paired and metric in ("top1", "difference") and frame["difference_low"].notna().any():
        return "paired"
    return "binomial" if metric in SHARES and "images" in frame else ""


def paired_words(frame: pd.DataFrame) -> str:
    """What paired intervals are, as far as the frame says it."""
    levels = [] if "difference_level" not in frame else frame["difference_level"].dropna().tolist()
    return (
        f"{f'{levels[0]:.0%} ' if len(set(levels)) == 1 else ''}intervals of the difference from "
        f"{reference_words(frame)}, paired by image"
    )


def _label(frame: pd.DataFrame, metric: str) -> str:
    label = frames.label_of(metric)
    if metric == "difference" and "difference_from" in frame:
        return label.replace("dense", reference_words(frame))
    return label


def _value(rows: pd.DataFrame, metric: str, kind: str, level: float) -> tuple[float, float, float]:
    """The average of some rows, and its interval."""
    value, low, high = float(rows[metric].mean()), math.nan, math.nan
    if kind == "seeds":
        runs = rows.groupby("seed")[metric].mean()
        half = float(special.stdtrit(len(runs) - 1, (1 + level) / 2) * runs.sem())
        low, high = float(runs.mean()) - half, float(runs.mean()) + half
    elif kind == "paired":
        # Bounds of the difference, around the value; the dense model has none.
        low, high = (
            value + float((rows[f"difference_{end}"] - rows["difference"]).mean())
            for end in ("low", "high")
        )
        if metric in SHARES:
            low, high = max(low, 0.0), min(high, 100.0)
    elif kind == "binomial":
        low, high = wilson(value, float(rows["images"].min()), level)
    return value, low, high


def _varied_words(column: pd.Series, averaged: bool, own: bool) -> str:
    symbol = symbol_of(str(column.name), own)
    if not averaged:
        return f"{symbol} differs between points"
    values = list(dict.fromkeys(show_value(v) for v in sorted(column.dropna(), key=order)))
    return f"mean over {symbol} = {', '.join(values[:4])}{', …' * (len(values) > 4)}"


def _several(column: pd.Series) -> bool:
    return int(column.nunique(dropna=False)) > 1
