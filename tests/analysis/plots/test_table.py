"""What is best in a column, as it is printed."""

from __future__ import annotations

import dataclasses

from tokenred.analysis.plots.table import Block, show

BLOCK = Block("measured", "ViT", ("3", "5"), ((71.02, None), (71.04, 70.0), (70.9, 70.1)))


def test_best_of_a_column_with_ties_as_printed() -> None:
    best = [[BLOCK.is_best(i, j) for j in range(2)] for i in range(3)]
    assert best == [[True, False], [True, False], [False, True]]


def test_nothing_is_best_where_more_is_not_better() -> None:
    cost = dataclasses.replace(BLOCK, ranked=False)
    assert not any(cost.is_best(i, j) for i in range(3) for j in range(2))


def test_titles_and_values() -> None:
    assert BLOCK.title == "measured: ViT"
    assert dataclasses.replace(BLOCK, name="").title == "measured"
    assert (show(71.06), show(None)) == ("71.1", "")
