"""A page of sections, tables and pictures, rendered as HTML."""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from tokenred._version import __version__
from tokenred.analysis.plots.frames import show_value
from tokenred.analysis.result import number
from tokenred.core.files import write_atomically

SUFFIXES = (".html", ".htm")


class Value(NamedTuple):
    """The content of a table cell.

    Attributes:
        text: the text shown.
        order: the sort key; None for the text.
        mark: ``"good"``, ``"bad"`` or ``"open"`` for a colour; the text says it too.
        link: an anchor in the page, such as ``"#cells-1"``.
    """

    text: str
    order: float | None = None
    mark: str = ""
    link: str = ""


Row = Mapping[Any, Any]
Cell = Callable[[Row], Value]


class Column(NamedTuple):
    """A column: what it shows of a row, whether it holds numbers or code, and an explanation."""

    name: str
    cell: Cell
    numeric: bool = False
    code: bool = False
    help: str = ""


class DataTable(NamedTuple):
    """A table, whose rows have the anchors ``ANCHOR-1``, ``ANCHOR-2`` and so on.

    If it is ``sortable``, a click on a column sorts it, and its rows can be searched.
    """

    anchor: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    sortable: bool = True


class Picture(NamedTuple):
    """A figure as a ``data:`` URI, with the call that draws it and a caveat, if any."""

    title: str
    alt: str
    uri: str
    made_by: str = ""
    note: str = ""


class Section(NamedTuple):
    """A section of a page, in the order of its parts; empty ones are omitted.

    ``facts`` are names and values; ``details``, titles and long texts, are collapsed on a screen.
    """

    anchor: str
    heading: str
    paragraphs: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[DataTable] = ()
    details: Sequence[tuple[str, str]] = ()


def plain(value: Any) -> str:
    """A value of a frame as text; empty if missing."""
    return "" if value is None or value != value else show_value(value)


def word(name: str) -> Cell:
    """Shows a value of a row; numbers sort before what is missing."""

    def cell(row: Row) -> Value:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Value(plain(value), float(value) if value == value else math.inf)
        return Value(plain(value))

    return cell


def figure(name: str, digits: int, signed: bool = False, bounds: Sequence[str] = ()) -> Cell:
    """Shows a number of a row, with its interval if all its bounds are known."""

    def cell(row: Row) -> Value:
        text, *ends = (number(row, n, digits, signed=signed) for n in (name, *bounds))
        if not text:  # sorts last
            return Value("", math.inf)
        return Value(f"{text} [{', '.join(ends)}]" if ends and all(ends) else text, row[name])

    return cell


def write_page(path: Path, title: str, made_from: str, sections: Sequence[Section]) -> Path:
    """Write a page as HTML with inline style and script, completely or not at all.

    Every value is escaped, and a content security policy prevents the browser from loading or
    running anything else.
    """
    from jinja2 import Environment, StrictUndefined

    style, script, template = (_resource(f"page.{kind}") for kind in ("css", "js", "html"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    html = environment.from_string(template).render(
        title=title, sections=sections, style=style, script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}",
        subtitle=f"From {made_from}, by tokenred {__version__}, {now}.",
    )  # fmt: skip
    return write_atomically(path, html)


def _resource(name: str) -> str:
    return (files("tokenred.analysis.reports") / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
