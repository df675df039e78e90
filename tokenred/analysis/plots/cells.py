"""From a frame to the points of a figure: what is fixed, what is averaged, how sure each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenred.analysis.level import check_level
from tokenred.analysis.plots.frames import (
    Fixed,
    axes_of,
    choose,
    need,
    read_frame,
    show_value,
    symbol_of,
)
from tokenred.analysis.plots.intervals import student, wilson
from tokenred.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Points", "dense_value", "gather", "order"]

# An average over two of these would mean nothing.
_IDENTITY = ("model", "data", "weights", "method", "dtype", "precision")
_PAIRED = ("difference", "difference_low", "difference_high")
_SHARES = ("top1", "top5")


@dataclass(frozen=True, eq=False)
class Points:
    """What a figure draws.

    Attributes:
        frame: one row a point: the columns asked for, then ``value``, ``low`` and ``high`` (NaN
            where nothing says how sure the value is).
        about: model and data, where all points share them.
        fixed: the axes at one value, "α=0.1, θ=1".
        averaged: the axes averaged over, "mean over P = 3, 5"; empty where there are none.
        intervals: what the intervals are, "95% binomial intervals"; empty where there are none.
        left_out: what could not be drawn, "left out: 2 unfinished cells"; else empty.
    """

    frame: pd.DataFrame
    about: str
    fixed: str
    averaged: str
    intervals: str
    left_out: str

    @property
    def note(self) -> str:
        """All that a reader has to know beside the axes."""
        return self._join(self.intervals)

    @property
    def note_with_width(self) -> str:
        """The same for figures that draw no intervals: how wide they are."""
        half = self.half_width
        return self._join("" if half is None else f"{self.intervals} of about ±{half:.1f}")

    @property
    def half_width(self) -> float | None:
        """Half the width of a typical interval, or None where there are none."""
        halves = ((self.frame["high"] - self.frame["low"]) / 2).dropna()
        return None if halves.empty else float(halves.median())

    def _join(self, intervals: str) -> str:
        parts = (self.fixed, self.averaged, intervals, self.left_out)
        return "; ".join(part for part in parts if part)


def gather(
    source: Any,
    by: Sequence[str],
    metric: str = "top1",
    *,
    fixed: Fixed = None,
    level: float = 0.95,
) -> Points:
    """One point for each combination of values of some columns.

    Axes of a study that are neither asked for nor fixed are averaged over; a combination that was
    not run for all their values is left out, since its average would be of other cells.

    The intervals are Student's over seeds, where each point has several; else those of paired
    predictions, where the frame has differences from dense (``difference_low``,
    ``difference_high``); else Wilson's, of so many images. The last two are of one run; around an
    average they are rather too wide than too narrow, since its cells share their images.

    Args:
        source: see `read_frame`.
        by: the columns; rows without a value in one of them are left aside.
        metric: the column of the values.
        fixed: columns and the value that each must have.
        level: nominal coverage of the intervals; paired ones have that of the comparison.

    Raises:
        InputError: for missing columns or values, for no finished row, or for rows of several
            models, data sets or methods that are neither asked for nor fixed.
        ConfigError: for a level out of range.
    """
    check_level(level)
    frame = read_frame(source)
    need(frame, [*by, metric], "this figure")
    frame = choose(frame, fixed).dropna(subset=list(by))
    # A row of numbers, such as an α for each block, is a name here.
    rows = [n for n in (*by, *axes_of(frame)) if any(isinstance(v, tuple | list) for v in frame[n])]
    frame = frame.assign(**{name: frame[name].map(show_value) for name in rows})
    done = frame.dropna(subset=[metric])
    if done.empty:
        raise InputError(
            f"expected finished cells with {', '.join([*by, metric])}, got none among "
            f"{len(frame)} rows; see the columns status and error, where there are some."
        )
    _refuse_mixtures(done, by)
    varied = [
        name
        for name in axes_of(done)
        if name not in (*by, metric) and done[name].nunique(dropna=False) > 1
    ]
    within = done.groupby(list(by), sort=False)[varied].nunique(dropna=False)
    others = [name for name in varied if (within[name] > 1).any()]
    points, incomplete = _points(done, list(by), metric, others, level)
    kinds = {
        "seeds": f"{level:.0%} intervals over seeds",
        # Computed with the frame, at its level.
        "paired": "paired intervals",
        "wilson": f"{level:.0%} binomial intervals",
    }
    lost = [
        _count(len(frame) - len(done), "unfinished cell"),
        _count(incomplete, "point", " not run for all of these"),
    ]
    return Points(
        frame=points,
        about=" on ".join(
            str(done[name].iloc[0]) for name in ("model", "data") if _shared(done, name)
        ),
        fixed=", ".join(
            f"{symbol_of(name)}={show_value(done[name].iloc[0])}"
            for name in dict.fromkeys([*axes_of(done), *(fixed or {})])
            if name not in by and _shared(done, name)
        ),
        averaged="; ".join(
            _averaged(done, name) if name in others else f"{symbol_of(name)} differs between points"
            for name in varied
        ),
        intervals=kinds.get(points.attrs["how"], ""),
        left_out=("left out: " if any(lost) else "") + ", ".join(part for part in lost if part),
    )


def dense_value(source: Any, metric: str) -> float | None:
    """The dense model's value, where the frame has just one."""
    frame = read_frame(source)
    if "method" not in frame or metric not in frame:
        return None
    values = frame.loc[frame["method"] == "dense", metric].dropna()
    return float(values.mean()) if len(values) and values.nunique() == 1 else None


def order(value: Any) -> tuple[int, Any]:
    """A key that sorts numbers before names."""
    return (0, value) if isinstance(value, int | float) else (1, str(value))


def _refuse_mixtures(frame: pd.DataFrame, by: Sequence[str]) -> None:
    for name in _IDENTITY:
        if name in frame and name not in by and frame[name].nunique(dropna=False) > 1:
            there = ", ".join(dict.fromkeys(show_value(v) for v in frame[name]))
            first = show_value(frame[name].iloc[0])
            raise InputError(
                f"the rows are of several values of {name} ({there}), and an average over them "
                f"would mean nothing. Fix one, such as {name}={first}."
            )


def _points(
    frame: pd.DataFrame, by: list[str], metric: str, others: list[str], level: float
) -> tuple[pd.DataFrame, int]:
    import pandas as pd

    combinations = len(frame[others].drop_duplicates()) if others else 1
    groups = [(key, rows) for key, rows in frame.groupby(by, sort=False)]
    whole = [
        (key, rows)
        for key, rows in groups
        if not others or len(rows[others].drop_duplicates()) == combinations
    ]
    if not whole:
        raise InputError(
            f"no combination of {', '.join(by)} was run for all values of {', '.join(others)}; "
            f"fix {others[0]} at one value."
        )
    seeds = "seed" in frame and all(rows["seed"].nunique() > 1 for _, rows in whole)
    how = "seeds" if seeds else _kind(frame, metric)
    records = []
    for key, rows in whole:
        value, low, high = _value(rows, metric, how, level)
        records.append((*key, value, low, high))
    points = pd.DataFrame(records, columns=[*by, "value", "low", "high"])
    points.attrs["how"] = how
    return points, len(groups) - len(whole)


def _kind(frame: pd.DataFrame, metric: str) -> str:
    paired = all(name in frame for name in _PAIRED) and frame["difference_low"].notna().any()
    if metric in ("top1", "difference") and paired:
        return "paired"
    return "wilson" if metric in _SHARES and "images" in frame else ""


def _value(rows: pd.DataFrame, metric: str, how: str, level: float) -> tuple[float, float, float]:
    value = float(rows[metric].mean())
    if how == "seeds":
        return (value, *student(rows.groupby("seed")[metric].mean().tolist(), level))
    if how == "paired":
        # Bounds of the difference, about the value: the dense model itself has none.
        low = (rows["difference_low"] - rows["difference"]).mean()
        high = (rows["difference_high"] - rows["difference"]).mean()
        low, high = value + float(low), value + float(high)
        # Of shares, an interval that reaches beyond what there can be says nothing more.
        return (value, max(low, 0.0), min(high, 100.0)) if metric in _SHARES else (value, low, high)
    if how == "wilson":
        return (value, *wilson(value, float(rows["images"].min()), level))
    return value, float("nan"), float("nan")


def _shared(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and frame[name].nunique() == 1 and frame[name].notna().all()


def _averaged(frame: pd.DataFrame, name: str) -> str:
    values = list(dict.fromkeys(show_value(v) for v in sorted(frame[name].dropna(), key=order)))
    shown = ", ".join(values[:4]) + (", …" if len(values) > 4 else "")
    return f"mean over {symbol_of(name)} = {shown}"


def _count(number: int, thing: str, rest: str = "") -> str:
    if not number:
        return ""
    return f"{number} {thing}{'s' * (number > 1)}{rest}"
