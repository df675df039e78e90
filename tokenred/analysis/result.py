"""What every finished measurement has: a frame, tables to print, a CSV."""

from __future__ import annotations

import math
import os
import sys
from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tokenred.analysis.terminal_table import plain_table
from tokenred.core.files import check_new, write_atomically

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
Columns = dict[str, Callable[[Row], str]]
"""What a row shows, by heading."""

ALIKE = 1.03
"""Costs no further apart are one budget's: whole tokens cannot meet it exactly."""

_WIDTH = 140
_NOTE = 'style="font-size: smaller; margin: 0.2em 0"'


def line_width() -> int | None:
    """What a printed line may take; None for the width of the terminal, or of ``COLUMNS``."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return None if terminal or "COLUMNS" in os.environ else _WIDTH


class Result(ABC):
    """A finished measurement: ``print`` and notebooks show its table.

    A subclass has a ``frame`` (a pandas frame, or a method that makes one), a `table` and
    `footnotes`; one that shows several tables overrides ``__rich__``.
    """

    frame: Any

    @property
    def with_references(self) -> pd.DataFrame:
        """The frame, and what its rows are compared with: for figures and a CSV."""
        frame: pd.DataFrame = self.frame() if callable(self.frame) else self.frame
        return frame

    def table(self) -> Table:
        """The frame for a terminal."""
        raise NotImplementedError(f"{type(self).__name__} has no table")

    def footnotes(self) -> Sequence[str | Text]:
        """Lines below the table."""
        return ()

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write `with_references` completely or not at all.

        Raises:
            OutputExistsError: if the file exists.
            DataError: if it cannot be written.
        """
        path = check_new(path, overwrite=overwrite)
        frame = self.with_references
        if "tokens" in frame:
            frame = frame.assign(tokens=frame["tokens"].map(_in_a_file))
        return write_atomically(path, frame.to_csv(index=False))

    def __rich__(self) -> Group:
        lines = [Text(note) if isinstance(note, str) else note for note in self.footnotes()]
        return Group(self.table(), Text(), *lines)

    def __str__(self) -> str:
        # In a notebook, rich would also show the text, as an empty output.
        console = Console(
            width=line_width(), color_system=None, force_terminal=False, force_jupyter=False,
            markup=False, emoji=False,
        )  # fmt: skip
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)  # print it for its table"

    def _repr_html_(self) -> str:
        """The same for a notebook, where tables are wider than lines of text."""
        shown = []
        for part in self.__rich__().renderables:
            if isinstance(part, Table):
                shown.append(_html(part))
            elif text := str(part).strip():
                shown.append(f"<p {_NOTE}>{escape(text)}</p>")
        return "\n".join(shown)


@dataclass(frozen=True, eq=False)
class FramedResult(Result):
    """A result that consists of a frame.

    Attributes:
        frame: tidy, one row per value.
        level: level of the intervals.
        notes: lines below the table.
    """

    frame: pd.DataFrame
    level: float
    notes: tuple[str, ...]

    @property
    def about(self) -> str:
        """Model and data, if they have names."""
        first = self.frame.iloc[0]
        return " on ".join(str(first[key]) for key in ("model", "data") if first[key])

    def footnotes(self) -> Sequence[str]:
        return self.notes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.frame)} rows)"


def table_of(
    columns: Columns,
    rows: Sequence[Row],
    *,
    title: str = "",
    left: int = 1,
    dim: int = 0,
    detail: str = "",
) -> Table:
    """A `plain_table` of rows, of which the first ``dim`` are only references.

    The column ``detail``, the last of the text, goes where lines are short.
    """
    table = plain_table(title, list(columns), left=left, keys=left - bool(detail))
    table.detail = detail
    for at, row in enumerate(rows):
        # Text, since square brackets mean styles in plain strings.
        cells = [Text(show(row)) for show in columns.values()]
        table.add_row(*cells, style="dim" if at < dim else None)
    return table


def word(row: Row, name: str) -> str:
    """A column of a row as text; empty if there is no value."""
    return "" if row.get(name) is None else str(row[name])


def number(row: Row, name: str, places: int, *, signed: bool = False) -> str:
    """A number in a row as text; empty if there is none, or it is not finite."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    # + 0.0 turns −0.0 into 0.0.
    return f"{round(value, places) + 0.0:{'+' * signed}.{places}f}"


def interval(row: Row, name: str, places: int = 2, *, signed: bool = False) -> str:
    """``value [low, high]`` from a column and its bounds; empty if there is no value."""
    value, low, high = (
        number(row, f"{name}{end}", places, signed=signed) for end in ("", "_low", "_high")
    )
    return f"{value} [{low}, {high}]" if value else ""


def reference_name(names: Iterable[str]) -> str:
    """What several rows are compared with, in words; empty if there is no one name for it."""
    different = list(dict.fromkeys(names))
    bodies = {body for body, at, _ in (name.rpartition("@") for name in different) if at}
    if len(different) < 2:
        return "".join(different)
    alike = len(bodies) == 1 and all("@" in name for name in different)
    return f"{bodies.pop()} at the same budget" if alike else ""


def figure_columns(
    rows: Sequence[Row], against: str | None = "dense", level: float = 0.95, *, brief: bool = False
) -> Columns:
    """The columns of what was measured, with differences from ``against`` at a ``level``."""
    there = {name for row in rows for name in row}
    columns: Columns = {"GMACs\nper image": partial(number, name="gmacs", places=3)}
    if "speedup" in there:
        columns["images\nper second"] = partial(number, name="images_per_second", places=1)
        columns["speed-up over dense\n[90% interval]"] = lambda row: (
            interval(row, "speedup") or row.get("status", "")
        )
        if brief:
            columns["realised\nfraction"] = partial(number, name="realised", places=2)
        else:
            columns["the GMACs\nallow"] = partial(number, name="allowed", places=2)
            columns["realised fraction\n[90% interval]"] = partial(interval, name="realised")
    if "peak_bytes" in there:
        columns["peak MiB\n(dense)"] = lambda row: (
            f"{row['peak_bytes'] / 2**20:.1f} ({row['dense_peak_bytes'] / 2**20:.1f})"
            if "peak_bytes" in row
            else ""
        )
    if "top1" in there:
        columns["top-1\n%"] = partial(number, name="top1", places=2)
    if "difference" in there:
        heading = f"difference from {against or 'its reference'}\npoints [{level:.0%} paired]"
        columns[heading] = partial(interval, name="difference", signed=True)
    return columns


def figure_notes(rows: Sequence[Row]) -> list[str]:
    """Lines below the table: costs that are unknown, and how speed and memory were measured."""
    lines = []
    unknown = [
        str(row["strategy"])
        for row in rows
        if row.get("gmacs")
        and "overhead_gmacs" in row
        and not any(number(row, name, 4) for name in ("overhead_gmacs", "mean_overhead_gmacs"))
    ]
    if unknown := list(dict.fromkeys(unknown)):  # cells may share a result
        names = f"{', '.join(unknown[:4])}{', …' * (len(unknown) > 4)}"
        lines.append(
            f"The GMACs of {names} leave out the overhead of scores, graphs and fusing, which is "
            "unknown: a part has no `macs` (print(model) names it), or the token counts depend on "
            "the image."
        )
    if timed := [row for row in rows if "speedup" in row]:
        first, pairs = timed[0], sorted({row["pairs"] for row in timed})
        lines += [
            f"Speed: {span(pairs[0], pairs[-1])} pairs with "
            "timm's fused dense model right before each run; medians. "
            f"{first['processor']}, {count(int(first['threads']), 'thread')}, device "
            f"{first['device']}.",
            "Realised fraction: measured speed-up ÷ the speed-up that the GMACs allow.",
        ]
        itself = [row for row in timed if row.get("method") == "dense"]
        # As printed: an interval that excludes 1 by less says nothing about the machine.
        if off := [
            row
            for row in itself
            if round(row["speedup_high"], 2) < 1 or round(row["speedup_low"], 2) > 1
        ]:
            worst = max(off, key=lambda row: abs(math.log(row["speedup"])))
            lines.append(
                "The machine was busy or unsteady: dense against itself measured "
                f"{interval(worst, 'speedup')}, so speed-ups of this run can be off by as much; "
                "repeat it on an idle machine."
            )
    if any("peak_bytes" in row for row in rows):
        lines.append(
            "Peak: of PyTorch's allocations in a forward, without weights, images, and buffers "
            "outside PyTorch."
        )
    return lines


def span(low: object, high: object) -> str:
    """``3 to 5``; one of two equal ends."""
    return " to ".join(dict.fromkeys((str(low), str(high))))


def count(number: int, thing: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def resolution(rows: Iterable[Row], level: float) -> str:
    """What the images behind some differences can and cannot show; empty without differences."""
    found = [row for row in rows if number(row, "difference", 2)]
    if not found:
        return ""
    widths = [row["difference_high"] - row["difference_low"] for row in found]
    half, ends = median(widths) / 2, span(f"{min(widths):.1f}", f"{max(widths):.1f}")
    none = (
        ""
        if any(row["difference"] for row in found)
        else (" Here none differs from its reference: these images cannot rank the methods.")
    )
    return (
        f"What {count(min(int(row['images']) for row in found), 'image')} can tell: the "
        f"{level:.0%} intervals are {ends} points wide. A loss of more "
        f"than about {half:.1f} points shows; a smaller one, or a lead of one method over another "
        f"by as little, may be chance.{none}{_not_established(found, level)}"
    )


def _not_established(rows: Iterable[Row], level: float) -> str:
    """Rows whose interval excludes 0 while the stricter test does not."""
    names = [
        f"{row['strategy']} (p = {row['p_value']:.3g})"
        for row in rows
        if (row["difference_low"] > 0 or row["difference_high"] < 0)
        and row.get("p_value", 0.0) > 1 - level
    ]
    names = list(dict.fromkeys(names))  # cells may share a result
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" Not established by McNemar's exact test: {', '.join(names[:3])}{more}."


def quarters(counts: Sequence[float]) -> str:
    """Token counts at the quarters of the depth: ``196→172→148→124→100``."""
    depth = len(counts) - 1
    return "→".join(f"{counts[at]:.4g}" for at in (depth * q // 4 for q in range(5)))


def _html(table: Table) -> str:
    """A rich table as HTML; colours are left to the notebook."""

    def row(cells: Iterable[Any], tag: str = "td") -> str:
        words = (
            f'<{tag} style="text-align: {column.justify}">{_text(cell)}</{tag}>'
            for column, cell in zip(table.columns, cells, strict=True)
        )
        return f"<tr>{''.join(words)}</tr>"

    caption = f"<caption>{_text(table.title)}</caption>\n" if table.title else ""
    head = row((column.header for column in table.columns), "th")
    body = "\n".join(map(row, zip(*(column.cells for column in table.columns), strict=True)))
    return f"<table>\n{caption}<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _in_a_file(counts: Any) -> Any:
    """Token counts as in a CSV: ``64 60 56``."""
    return " ".join(map(str, counts)) if isinstance(counts, list | tuple) else counts


def _text(cell: Any) -> str:
    """A cell without its styles; line breaks are kept."""
    return escape(str(cell)).replace("\n", "<br>")
