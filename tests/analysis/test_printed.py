"""Results as text and as HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tokenred.analysis.printed import Printed


class _Result(Printed):
    def __rich__(self) -> Group:
        table = Table(title="a & b[/b]")
        table.add_column("name")
        table.add_column(Text("share\n[90% <interval>]"), justify="right")
        table.add_row(Text("gtp [x]"), Text("1.0", style="dim"))
        table.add_row(Text("<script>"), Text("2.0"))
        return Group(table, Text(), "", Text("small < print"))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "br":
            self.found[-1] = (self.found[-1][0], self.found[-1][1] + "|")
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append((self.open[-1], data))


def test_html_has_the_whole_table_and_escapes_what_users_wrote() -> None:
    html = _Result()._repr_html_()
    reader = _Reader()
    reader.feed(html)
    assert reader.open == []
    told = [(tag, text) for tag, text in reader.found if tag != "th"]
    assert told == [
        ("caption", "a & b[/b]"), ("td", "gtp [x]"), ("td", "1.0"), ("td", "<script>"),
        ("td", "2.0"),
        ("p", "small < print"),
    ]  # fmt: skip
    assert [text for tag, text in reader.found if tag == "th"] == [
        "name", "share|", "[90% <interval>]",
    ]  # fmt: skip
    assert html.count("text-align: right") == 3
    assert "[bold]" not in html
    assert "<script>" not in html


def test_text() -> None:
    text = str(_Result())
    assert "gtp [x]" in text
    assert text.endswith("small < print")


def test_a_result_must_say_what_it_shows() -> None:
    with pytest.raises(NotImplementedError, match="Printed has no __rich__"):
        Printed()._repr_html_()


def test_finished_measurements_have_it() -> None:
    from tokenred.analysis import Comparison, Oversmoothing, Sweep

    for kind in (Comparison, Oversmoothing, Sweep):
        assert issubclass(kind, Printed)
        assert "__rich__" in dir(kind)
        assert kind.__str__ is Printed.__str__
