"""The rows of a store for figures and reports; see also ``reports/test_source.py``."""

from pathlib import Path

import pandas as pd

from tokenred.analysis import Grid
from tokenred.analysis.plots.frames import read_frame


def test_cells_that_share_a_result_have_a_row_each(tmp_path: Path) -> None:
    axes = {"graph": ["none", "semantic"], "M": [4, 8]}
    grid = Grid("gtp:P=4", axes, model="digits", data="digits", limit=12, against="dense")
    study = grid.run(tmp_path / "a.db", progress=False)
    found = read_frame(tmp_path / "a.db")
    columns = ["graph", "M", "strategy", "top1", "difference", "difference_from"]
    cells = found[found["method"] != "dense"].sort_values(["graph", "M"], ignore_index=True)
    expected = study.frame.sort_values(["graph", "M"], ignore_index=True)
    pd.testing.assert_frame_equal(cells[columns], expected[columns], check_dtype=False)
    assert len(found) == 5
    # A larger grid with the same results: rows have its axes then.
    Grid("gtp", {**axes, "P": [4]}, model="digits", data="digits", limit=12, against="dense").run(
        tmp_path / "a.db", progress=False
    )
    assert len(read_frame(tmp_path / "a.db")) == 5
