"""Tables for a terminal of which nothing is cut, and the folding of long names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from itertools import accumulate
from textwrap import TextWrapper
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

_GAP = 2  # between columns


class _Folder(TextWrapper):
    """Breaks lines also between a strategy's arguments, before its budget and in module names.

    What parentheses enclose stays on one line if it fits there.
    """

    wordsep_simple_re = re.compile(r"(\s+)|(?<=,)|(?<=\w\()|(?=@|\.[a-z])")

    def pieces(self, text: str) -> list[str]:
        return super()._split(text)

    def _split(self, text: str) -> list[str]:
        pieces, found = self.pieces(text), list[str]()
        while pieces:
            open_ones = (
                len(re.findall(r"[(\[]", p)) - len(re.findall(r"[)\]]", p)) for p in pieces
            )
            ends = (at for at, depth in enumerate(accumulate(open_ones), 1) if depth <= 0)
            end = next(ends, 1)
            end = end if sum(map(len, pieces[:end])) <= self.width else 1
            found.append("".join(pieces[:end]))
            pieces = pieces[end:]
        return found

    def _handle_long_word(
        self, reversed_chunks: list[str], cur_line: list[str], cur_len: int, width: int
    ) -> None:
        # A comma or bracket alone would begin the next line.
        word = reversed_chunks[-1]
        cut = max(1, min(width - cur_len, len(word) - 3))
        cur_line.append(word[:cut])
        reversed_chunks[-1] = word[cut:]


_FOLDER = _Folder(break_on_hyphens=False)


def fold(text: str, width: int) -> str:
    """A text of strategies and parts in lines of at most ``width`` letters; none is left out."""
    _FOLDER.width = width
    return "\n".join(_FOLDER.wrap(text))


def longest_piece(text: str) -> int:
    """The letters of the longest line of a text that `fold` breaks wherever it can."""
    return max(map(len, _FOLDER.pieces(text)), default=0)


class WholeTable(Table):
    """A table of which nothing is cut: where the lines are too short, its columns are stacked.

    A column that may wrap has at least its ``min_width``, and is not folded within a word.

    Attributes:
        keys: so many columns come first and are repeated in every part of a stack.
        detail: the heading of a column that goes before anything is stacked.
    """

    keys = 1
    detail = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        stack = self._stack(options.max_width)
        for at, columns in enumerate(stack):
            part = copy(self)
            part.caption = self.caption if columns is stack[-1] else None
            part.columns = _fitted(columns, options.max_width)
            if at:
                part.title = None
                yield ""
            yield from Table.__rich_console__(part, console, options)

    def _stack(self, width: int) -> list[list[Column]]:
        """The columns of each part."""
        keys, rest = self.columns[: self.keys], self.columns[self.keys :]
        if _width(self.columns) > width:
            rest = [column for column in rest if str(column.header) != self.detail]
            # Names are as long as their users make them: the longest is folded.
            longest = max(keys, key=_wide)
            room = (width * 2 // 3 if rest else width) - _width(keys) + _wide(longest)
            room = max(8, room)
            folded = replace(longest, no_wrap=False, min_width=room, max_width=room)
            keys = [folded if column is longest else column for column in keys]
        stack = [keys]
        for column in rest:
            if len(stack[-1]) > len(keys) and _width([*stack[-1], column]) > width:
                stack.append(keys)
            stack[-1] = [*stack[-1], column]
        return stack


def _full(column: Column) -> int:
    """The width that a column needs for its longest line."""
    lines = [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]
    return min(max(map(cell_len, lines)), column.max_width or 999)


def _wide(column: Column) -> int:
    """The least width of a column."""
    if column.no_wrap:
        return _full(column)
    words = [cell_len(word) for cell in column.cells for word in _FOLDER.pieces(str(cell))]
    return min(_full(column), max([column.min_width or 0, *words]))


def _fitted(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns of one table, as wide as they need and the lines allow."""
    widths, full = list(map(_wide, columns)), list(map(_full, columns))
    spare = width - _width(columns)
    while spare > 0 and widths != full:  # to the column that has the most lines
        widths[max(range(len(full)), key=lambda at: full[at] / widths[at])] += 1
        spare -= 1
    if spare < 0 and not columns[(last := widths.index(max(widths)))].no_wrap:
        widths[last] = max(8, widths[last] + spare)
    return [
        replace(column, _index=at, width=wide, min_width=None, overflow="fold",
                _cells=column._cells if column.no_wrap else _folded(column, wide))
        for at, (column, wide) in enumerate(zip(columns, widths, strict=True))
    ]  # fmt: skip


def _folded(column: Column, width: int) -> list[Any]:
    return [Text(fold(str(cell), width)) for cell in column.cells]


def _width(columns: Sequence[Column]) -> int:
    return sum(_wide(column) + _GAP for column in columns)


def plain_table(title: str, names: Sequence[str], *, left: int = 1, keys: int = 0) -> WholeTable:
    """An empty table in the house style.

    The first ``left`` columns are text, the others numbers; the first ``keys``, by default those of
    text, say what a row is.
    """
    heading = Text(title, style="bold") if title else None
    table = WholeTable(
        title=heading, box=None, header_style="bold", pad_edge=False, caption_justify="left"
    )
    table.keys = keys or left
    for at, name in enumerate(names):
        table.add_column(Text(name), justify="left" if at < left else "right", no_wrap=True)
    return table
