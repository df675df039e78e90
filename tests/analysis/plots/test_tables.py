"""Tables of a study, with a paper's beside them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis import graph_table, tabulate, theta_table
from tokenred.analysis.plots.tables import theta_rows
from tokenred.core.errors import InputError


@pytest.fixture
def graphs(grid: pd.DataFrame) -> pd.DataFrame:
    one = grid[(grid["alpha"] == 0.1) & (grid["M"] == 8)].drop(columns=["alpha", "M"])
    rows = [
        one.assign(graph=name, top1=one["top1"] + i) for i, name in enumerate(["none", "mixed"])
    ]
    return pd.concat(rows, ignore_index=True)[["graph", *one.columns]]


@pytest.fixture
def thetas(grid: pd.DataFrame) -> pd.DataFrame:
    one = grid[grid["M"] == 8].drop(columns="M")
    named = one.rename(columns={"alpha": "theta"})
    return named.assign(proportional_attention=named["theta"] < 0.4)[
        ["theta", "proportional_attention", *named.columns[1:]]
    ]


def test_values_stand_in_their_places(graphs: pd.DataFrame) -> None:
    table = tabulate(graphs, "graph")
    assert table.heads == ("graph",)
    assert table.rows == (("none",), ("mixed",))
    (block,) = table.blocks
    assert block.title == "measured: ViT on digits"
    assert block.columns == ("3", "5")
    assert block.values == (pytest.approx((69.0, 67.0)), pytest.approx((70.0, 68.0)))
    assert table.note == "95% binomial intervals of about ±2.9"
    assert block.half_width == pytest.approx(2.87, abs=0.03)


def test_published_values_beside(graphs: pd.DataFrame, published: Path) -> None:
    table = tabulate(graphs, "graph", published=published, table=4, backbone="DeiT-S")
    assert table.rows == (("none",), ("mixed",), ("spatial",), ("semantic",))
    ours, theirs = table.blocks
    assert ours.values[2:] == ((None, None), (None, None))
    assert theirs.title == "published: DeiT-S"
    assert theirs.columns == ("4", "8", "11", "14")
    assert theirs.values[0] == (79.6, 79.2, 78.7, 77.6)
    assert theirs.values[1] == (79.8, 79.5, 79.1, 78.3)


def test_theta_with_and_without_log_s(thetas: pd.DataFrame, published: Path) -> None:
    assert theta_rows(thetas) == ["theta", "proportional_attention"]
    assert theta_rows(thetas.drop(columns="proportional_attention")) == ["theta"]
    table = tabulate(thetas, theta_rows(thetas), published=published, table=5)
    assert table.heads == ("θ", "log s")
    names = [name for name, _ in table.rows]
    assert names == ["0.1", "0.2", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1", "best"]
    assert dict(table.rows)["0.4"] == "no"
    assert dict(table.rows)["0.5"] == "yes"
    assert len(table.blocks) == 3
    assert "log s: proportional attention" in table.note


def test_a_figure_of_each(graphs: pd.DataFrame, thetas: pd.DataFrame, published: Path) -> None:
    assert len(graph_table(graphs, published=published).axes) == 3
    assert len(theta_table(thetas, published=published, backbone="DeiT-B").axes) == 2


def test_costs_have_no_best(graphs: pd.DataFrame) -> None:
    (block,) = tabulate(graphs, "graph", metric="gmacs").blocks
    assert not block.ranked


def test_refused(graphs: pd.DataFrame, published: Path) -> None:
    with pytest.raises(InputError, match="this table needs the column theta"):
        tabulate(graphs, "theta")
    with pytest.raises(InputError, match="no row has table=9"):
        tabulate(graphs, "graph", published=published, table=9)
    wide = pd.DataFrame([{"backbone": "DeiT-S", "P": 8, "top1": 79.5}])
    with pytest.raises(InputError, match="published points of this table needs the column graph"):
        tabulate(graphs, "graph", published=wide)
