"""The table of cells, and that of failures."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis.reporting.cells import cell_table, failures, plain
from tokenred.analysis.reporting.page import DataTable
from tokenred.analysis.reporting.sources import read_source


def _column(table: DataTable, name: str) -> list[str]:
    at = [column.name for column in table.columns].index(name)
    return [row.values[at].text for row in table.rows]


def test_a_study(store: Path) -> None:
    source = read_source(store)
    table = cell_table(source, "s1-cells", {0: "place"})
    names = [column.name for column in table.columns]
    assert names[:4] == ["#", "α", "P", "θ"]
    assert {"GMACs", "top-1 %", "difference, points", "p", "luck", "status"} <= set(names)
    # One model and data: they stand among what all cells share.
    assert not {"model", "data"} & set(names)
    assert len(table.rows) == 6
    assert table.caption == "All 6 cells"
    assert table.rows[0].values[0].link == "#place"
    assert table.rows[1].values[0].link == ""
    assert _column(table, "status").count("failed") == 1
    assert _column(table, "image tokens").count("") == 1


def test_a_comparison(comparison: pd.DataFrame) -> None:
    table = cell_table(read_source(comparison), "c", {})
    assert _column(table, "difference, points") == [
        "",
        "-1.00 [-2.00, +0.00]",
        "-2.00 [-3.00, -1.00]",
    ]
    assert _column(table, "image tokens")[0] == "64→60→50→40→30"
    gap = table.rows[0].values[[c.name for c in table.columns].index("difference, points")]
    assert gap.order == math.inf


def test_failures(store: Path) -> None:
    table, traces = failures(read_source(store), "s1-failed")
    assert table is not None
    (row,) = table.rows
    assert "no luck" in row.values[-1].text
    assert row.values[0].link.startswith("#s1-cells-row-")
    ((title, trace),) = traces
    assert "Traceback of cell" in title
    assert "RuntimeError" in trace


def test_no_failures(comparison: pd.DataFrame) -> None:
    assert failures(read_source(comparison), "x") == (None, ())


def test_a_sweep_names_its_batches(sweep: pd.DataFrame) -> None:
    table = cell_table(read_source(sweep), "s", {})
    assert _column(table, "batch size") == ["1", "8", "1", "8", "8"]
    assert _column(table, "speed-up [90%]")[0] == "0.90 [0.80, 1.00]"
    failed, traces = failures(read_source(sweep), "s-failed")
    assert failed is not None
    assert len(failed.rows) == 1
    assert traces == ()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (math.nan, ""), (0.1, "0.1"), (True, "True"), ((0.1, 0.2), "[0.1, 0.2]")],
)
def test_plain(value: object, shown: str) -> None:
    assert plain(value) == shown
