"""A page of sections, tables and pictures, and how it becomes HTML."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

__all__ = ["Column", "DataTable", "Page", "Picture", "Row", "Section", "Value", "number", "render"]

_PACKAGE = "tokenred.analysis.reporting"


@dataclass(frozen=True)
class Value:
    """What stands in a cell of a table.

    Attributes:
        text: as it is shown.
        order: what it is sorted by; None for the text.
        mark: ``"good"``, ``"bad"`` or ``"owed"`` for a colour; the text says it too.
        link: to a place in the page, such as ``"#run-1"``.
    """

    text: str
    order: float | None = None
    mark: str = ""
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: above it.
        numeric: set flush right.
        code: set in a typewriter face, and broken anywhere.
        help: in a few words what it is; empty for none.
    """

    name: str
    numeric: bool = False
    code: bool = False
    help: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table, with a place to jump to where it has a name."""

    values: tuple[Value, ...]
    anchor: str = ""


@dataclass(frozen=True)
class DataTable:
    """A table.

    Attributes:
        anchor: its name in the page.
        caption: above it.
        columns, rows: what is in it.
        sortable: by a click on a column's name; and rows can be searched.
    """

    anchor: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sortable: bool = True


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        title: beneath it.
        alt: what it shows, for those who do not see it.
        uri: the picture itself, as a ``data:`` address.
        made_by: the call that draws it.
        note: a caution to read it with.
    """

    title: str
    alt: str
    uri: str
    made_by: str = ""
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading; whatever is empty is left out.

    Attributes:
        anchor: its name in the page.
        heading: above it.
        paragraphs: text.
        facts: names and values.
        pictures, tables: in this order.
        details: titles and long texts, folded away on a screen.
    """

    anchor: str
    heading: str
    paragraphs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[DataTable, ...] = ()
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    subtitle: str
    sections: tuple[Section, ...] = field(default=())


def number(value: Any, digits: int, signed: bool = False) -> Value:
    """A number as a cell; one that is missing or no finite number is empty and sorts last."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return Value("", math.inf)
    # + 0.0 makes of −0.0 a 0.0.
    shown = round(float(value), digits) + 0.0
    return Value(f"{shown:+.{digits}f}" if signed else f"{shown:.{digits}f}", float(value))


def render(page: Page) -> str:
    """The page as HTML, with style and script in it; every value is escaped.

    A policy in its head forbids the browser to load or to run anything else.
    """
    from jinja2 import Environment, StrictUndefined

    style, script = _resource("page.css"), _resource("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    )
    template = environment.from_string(_resource("page.html"))
    return template.render(page=page, style=style, script=script, policy=policy)


def _resource(name: str) -> str:
    return (files(_PACKAGE) / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
