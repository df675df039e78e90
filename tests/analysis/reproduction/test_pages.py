"""The page of a reproduction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.analysis.reporting.pages import ReadPage, check_page
from tests.analysis.reproduction.test_charts import part
from tokenred.analysis.reporting.page import Page, render
from tokenred.analysis.reproduction import pages
from tokenred.analysis.reproduction.pages import make_page
from tokenred.analysis.reproduction.results import Part, Reproduction
from tokenred.core.errors import InputError


def read(*parts: Part) -> ReadPage:
    page: Page = make_page(Reproduction(parts, None, None, 1000))
    return check_page(render(page))


def test_every_experiment_has_a_section() -> None:
    page = read(part("table1", True), part("table7", True))
    summary, *tables = page.tables
    assert summary[0][3:] == ["✓ as published", "✗ differs", "owed", "measured only"]
    assert [row[0] for row in summary[1:]] == ["table1", "table7"]
    assert len(tables) == 2
    assert len(page.pictures) == 2
    assert {"#part-1", "#part-2"} <= set(page.references)
    rows = tables[0][1:]
    differing = [row for row in rows if row[6] == "✗ differs"]
    counted = sum(int(cell or 0) for row in summary[1:2] for cell in row[3:])
    assert counted == len(rows)
    assert differing
    assert all(row[2] and row[4] for row in differing)  # ours and theirs
    assert {"GMACs", "top-1 %"} <= {row[1] for row in rows}


def test_what_is_drawn_of_others_rows_has_no_table() -> None:
    page = read(part("figure1", True))
    assert len(page.pictures) == 1
    assert len(page.tables) == 1  # the summary


def test_a_figure_that_cannot_be_drawn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(drawing: object) -> None:
        raise InputError("no <b>points</b>")

    monkeypatch.setattr(pages, "embed", refuse)
    made = make_page(Reproduction((part("table1", True),), None, None, 1000))
    text = render(made)
    page = check_page(text)
    assert not page.pictures
    assert "Not drawn: no &lt;b&gt;points&lt;/b&gt;" in text


def test_commands_for_what_is_owed() -> None:
    one = part("table1", True)
    owed = replace(
        one.points[1], owed="no weights", command="tokenred finetune --model X", cells=()
    )
    points = (one.points[0], owed, *one.points[2:])
    records = (one.records[0], (), *one.records[2:])
    made = make_page(Reproduction((replace(one, points=points, records=records),), None, None, 1))
    text = render(made)
    assert "Commands that make what is owed" in text
    assert "tokenred finetune --model X" in text
