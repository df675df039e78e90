"""The table of a study."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tokenred.analysis.study.table import footnotes, make_table, sort_records
from tokenred.core.errors import UnknownNameError

ABOUT = {"model": "ViT", "data": "digits", "weights": "w", "seed": 0, "images": 10,
         "tokenred": "0", "torch": "2", "timm": "1"}  # fmt: skip


def cell(alpha: Any, top1: float | None = 50.0, **more: Any) -> dict[str, Any]:
    found = {"alpha": alpha, "M": 4, "strategy": f"gtp:alpha={alpha}", "gmacs": 1.0, "key": alpha,
             "status": "done", "error": "", **ABOUT}  # fmt: skip
    return found | ({} if top1 is None else {"top1": top1}) | more


def study(records: list[Any], references: tuple[Any, ...] = ()) -> Any:
    return SimpleNamespace(
        records=records, references=list(references), axes=("alpha", "M"), against="dense",
        level=0.9, store=SimpleNamespace(path=None),
        failed=lambda: [row for row in records if row["status"] != "done"],
    )  # fmt: skip


def shown(made: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=140).print(made)
    return stream.getvalue()


def test_only_what_varies_has_a_column() -> None:
    table = make_table(study([cell(0.1), cell(0.2)]), None, None)
    assert [str(c.header) for c in table.columns] == ["alpha", "GMACs\nan image", "top-1\n%"]
    same = make_table(study([cell(0.1)]), None, None)
    assert str(same.columns[0].header) == "strategy"


def test_the_reference_stands_above_and_cells_that_failed_do_not() -> None:
    gap = {"difference": -1.25, "difference_low": -2.0, "difference_high": -0.001}
    reference = cell(None, 60.0)
    records = [cell(0.1, 40.0, **gap), cell(0.2, 50.0, **gap), cell(0.3, None, status="failed")]
    lines = shown(make_table(study(records, (reference,)), None, None)).splitlines()
    assert "points from dense" in lines[0]
    assert "[90% paired interval]" in lines[1]
    rows = [line.split()[0] for line in lines[2:]]
    assert rows == ["(dense)", "0.2", "0.1"]
    # Brackets are no markup, and nothing is −0.00.
    assert "-1.25 [-2.00, +0.00]" in lines[3]


def test_at_most_so_many() -> None:
    records = [cell(i / 10, float(i)) for i in range(5)]
    assert make_table(study(records), None, 2).row_count == 2


def test_sorted() -> None:
    a, b, c = cell(1, 50.0, gmacs=2.0), cell(2, 50.0, gmacs=1.0), cell(3, None, speed=5.0)
    # The cheaper of two that are as good; those without a number last.
    assert sort_records([a, c, b]) == [b, a, c]
    assert sort_records([a, c], "speed") == [c, a]
    assert sort_records([], "speed") == []
    plain = [cell(1, None, gmacs=2.0), cell(2, None, gmacs=1.0)]
    assert [row["alpha"] for row in sort_records(plain)] == [2, 1]
    with pytest.raises(UnknownNameError, match="column"):
        sort_records([a], "speeed")


def test_at_most_four_numbers_of_further_metrics() -> None:
    more = {f"metric_{i}": float(i) for i in range(6)} | {"words": "text"}
    table = make_table(study([cell(0.1, **more), cell(0.2, **more)]), None, None)
    assert [str(c.header) for c in table.columns[3:]] == [f"metric {i}" for i in range(4)]


def test_footnotes_say_what_went_wrong() -> None:
    bad = [cell(i, None, status="failed", error="ValueError: [no]") for i in range(7)]
    lines = [line.plain for line in footnotes(study([cell(9), *bad]))]
    assert lines[0].startswith("8 cells, 8 different results; 10 images of digits, model ViT")
    assert lines[1] == "failed: gtp:alpha=0: ValueError: [no]"
    assert lines[6] == "and 2 more that failed or were left out."
    assert len(lines) == 7
