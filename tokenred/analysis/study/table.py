"""The table of a study for a terminal: what varies, what it costs, how good it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tokenred.analysis.study.cell import DONE
from tokenred.analysis.study.frame import extra_columns
from tokenred.core.errors import UnknownNameError

if TYPE_CHECKING:
    from tokenred.analysis.study.study import Study

__all__ = ["footnotes", "make_table"]

Record = Mapping[str, Any]
_MOST_EXTRA = 4
_OF_COMPARISON = ("difference", "difference_low", "difference_high", "p_value", "unreadable")


def make_table(study: Study, by: str | None, most: int | None) -> Table:
    """See `Study.table`."""
    records = sort_records(study.records, by)
    done = [row for row in records if row["status"] == DONE]
    axes = [name for name in study.axes if _varies(records, name)] or ["strategy"]
    extra = _extra(done, study.axes)
    accuracy = any(row.get("top1") is not None for row in done)
    differences = any("difference" in row for row in done)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in axes:
        table.add_column(name, no_wrap=True)
    table.add_column("GMACs\nan image", justify="right")
    if accuracy:
        table.add_column("top-1\n%", justify="right")
    if differences:
        table.add_column(
            f"points from {study.against}\n[{study.level:.0%} paired interval]",
            justify="right", no_wrap=True,
        )  # fmt: skip
    for name in extra:
        table.add_column(name.replace("_", " "), justify="right")
    shown = done[:most]
    both = [*study.references, *shown]
    for row in both:
        is_reference = any(row is reference for reference in study.references)
        cells = [_first(row, name, study.against, is_reference, at) for at, name in enumerate(axes)]
        cells.append(Text(_number(row.get("gmacs"), 4)))
        if accuracy:
            cells.append(Text(_number(row.get("top1"), 2)))
        if differences:
            cells.append(Text(_interval(row)))
        cells += [Text(_number(row.get(name), 3)) for name in extra]
        table.add_row(*cells, style="dim" if is_reference else None)
    return table


def footnotes(study: Study) -> list[Text]:
    """How many cells there are, which failed, and what produced the rows."""
    records = study.records
    done = [row for row in records if row["status"] == DONE]
    lines = [f"{len(records)} cells, {len({row['key'] for row in records})} different results"]
    if done:
        first = done[0]
        images = f"{first['images']} images of {first['data']}, " if "images" in first else ""
        lines[0] += (
            f"; {images}model {first['model']}, weights {first['weights']}, seed {first['seed']}; "
            f"tokenred {first['tokenred']}, torch {first['torch']}, timm {first['timm']}."
        )
    for row in study.failed()[:5]:
        lines.append(f"{row['status']}: {row['strategy']}: {row['error']}")
    if len(study.failed()) > 5:
        lines.append(f"and {len(study.failed()) - 5} more that failed or were left out.")
    if study.store.path is not None:
        lines.append(f"Stored in {study.store.path}.")
    return [Text(line) for line in lines]


def sort_records(records: Sequence[Record], by: str | None = None) -> list[Record]:
    """The best first, those without a number last.

    Raises:
        UnknownNameError: for a column that is not there.
    """
    if by is None:
        by = "top1" if any(row.get("top1") is not None for row in records) else ""
    elif records and not any(by in row for row in records):
        raise UnknownNameError.of("column", by, {name for row in records for name in row})

    def order(row: Record) -> tuple[float, float]:
        value = row.get(by) if by else None
        good = float(value) if isinstance(value, int | float) else -math.inf
        return (-good, float(row.get("gmacs") or math.inf))

    return sorted(records, key=order)


def _varies(records: Sequence[Record], name: str) -> bool:
    return len({repr(row.get(name)) for row in records}) > 1


def _extra(records: Sequence[Record], axes: Sequence[str]) -> list[str]:
    """Numbers of further metrics."""
    names = [n for n in extra_columns(records, axes) if n not in _OF_COMPARISON]
    numbers = [n for n in names if any(isinstance(row.get(n), int | float) for row in records)]
    return numbers[:_MOST_EXTRA]


def _first(row: Record, name: str, against: str | None, is_reference: bool, at: int) -> Text:
    if not is_reference:
        value = row.get(name)
        # Text, since square brackets mean styles in plain strings.
        return Text("" if value is None else str(value))
    return Text(str(row.get(name) or (f"({against})" if at == 0 else "")))


def _number(value: Any, places: int) -> str:
    return f"{value:.{places}f}" if isinstance(value, int | float) else ""


def _interval(row: Record) -> str:
    if "difference" not in row:
        return ""
    low, high = row["difference_low"], row["difference_high"]
    return f"{_signed(row['difference'])} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    # + 0.0 turns −0.0 into 0.0.
    return f"{round(value, 2) + 0.0:+.2f}"
