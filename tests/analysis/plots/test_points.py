"""What is fixed, averaged and left out, and how sure the points are."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tokenred.analysis.plots.points import gather, reference_values, wilson
from tokenred.core.errors import ConfigError, InputError


def test_other_axes_are_averaged_and_fixed_ones_named(grid: pd.DataFrame) -> None:
    points = gather(grid, ["alpha"])
    assert points.frame["alpha"].tolist() == [0.1, 0.2, 0.4]
    assert points.frame["value"].tolist() == pytest.approx([67.75, 68.75, 70.75])
    assert points.note().startswith("mean over M = 4, 8; mean over P = 3, 5; 95%")
    assert points.about == "ViT on digits"
    fixed = gather(grid, ["alpha", "M"], fixed={"P": 5})
    assert len(fixed.frame) == 6
    assert fixed.note() == "P=5; 95% binomial intervals"
    assert "intervals: about ±" in fixed.note(width=True)


def test_paired_intervals_go_first_and_those_of_shares_end_where_shares_do(
    grid: pd.DataFrame,
) -> None:
    gap = grid["top1"] - 75
    paired = grid.assign(difference=gap, difference_low=gap - 0.5, difference_high=gap + 0.7)
    points = gather(paired, ["alpha"])
    words = "intervals of the difference from {}, paired by image"
    assert points.intervals == words.format("the reference")
    told = paired.assign(difference_level=0.9, difference_from="tome@0.6")
    assert gather(told, ["alpha"]).intervals == f"90% {words.format('ToMe at 0.6')}"
    assert (points.frame["value"] - points.frame["low"]).tolist() == pytest.approx([0.5] * 3)
    assert (points.frame["high"] - points.frame["value"]).tolist() == pytest.approx([0.7] * 3)
    wide = paired.assign(difference_low=gap - 80, difference_high=gap + 50)
    own = gather(wide, ["alpha"]).frame
    assert (own["low"].tolist(), own["high"].tolist()) == ([0.0] * 3, [100.0] * 3)
    # A difference may be negative.
    own = gather(wide, ["alpha"], "difference").frame
    assert own["value"].tolist() == pytest.approx([67.75 - 75, 68.75 - 75, 70.75 - 75])
    assert own["low"].tolist() == pytest.approx((own["value"] - 80).tolist())


def test_intervals_over_seeds_binomial_ones_and_none(grid: pd.DataFrame) -> None:
    seeds = pd.concat([grid.assign(seed=s, top1=grid["top1"] + s) for s in range(3)])
    points = gather(seeds, ["alpha"], level=0.9)
    assert points.intervals == "90% intervals over seeds"
    first = points.frame.iloc[0]
    low, high = stats.t.interval(0.9, 2, 68.75, stats.sem([67.75, 68.75, 69.75]))
    assert (first["value"], first["low"], first["high"]) == pytest.approx((68.75, low, high))
    for row in gather(grid, ["alpha", "M", "P"], level=0.9).frame.itertuples():
        assert (row.low, row.high) == pytest.approx(wilson(row.value, 1000, 0.9))
    costs = gather(grid, ["P"], "gmacs")
    assert costs.frame["value"].tolist() == pytest.approx([0.7, 0.5])
    assert costs.frame["low"].isna().all()
    assert costs.intervals == ""


def test_unfinished_cells_and_incomplete_points_are_left_out(grid: pd.DataFrame) -> None:
    grid.loc[(grid["alpha"] == 0.4) & (grid["P"] == 5), "top1"] = np.nan
    points = gather(grid, ["alpha"])
    assert points.frame["alpha"].tolist() == [0.1, 0.2]
    assert points.left_out == "left out: 2 unfinished cells, 1 point not run for all of these"


def test_an_axis_that_goes_with_another_is_said(grid: pd.DataFrame) -> None:
    points = gather(grid.assign(alpha=grid["M"] / 10), ["M"], fixed={"P": 3})
    assert "α differs between points" in points.note()


def test_rows_of_numbers_are_names_and_dense_is_none_of_the_points(
    with_dense: pd.DataFrame,
) -> None:
    rows = {0.1: (0.1, 0.2), 0.2: (0.1, 0.2, 0.3, 0.4), 0.4: (0.4, 0.4)}
    points = gather(with_dense.assign(alpha=with_dense["alpha"].map(rows)), ["alpha"])
    assert points.frame["alpha"].tolist() == ["[0.1, 0.2]", "[0.1, …, 0.4]", "[0.4, 0.4]"]
    assert reference_values(with_dense, "top1") == {"dense": 75.0}
    assert reference_values(with_dense[:-1], "top1") == {}


def test_a_reference_is_no_point_unless_it_is_a_cell_which_has_no_interval(
    with_reference: pd.DataFrame,
) -> None:
    points = gather(with_reference, ["alpha", "M"], fixed={"P": 3})
    assert points.frame[["low", "high"]].notna().all(axis=None)
    assert len(gather(with_reference.assign(method="gtp"), ["gmacs"]).frame) == 2
    told = "GTP-ViT, M=1\n(0.9 GMACs)"  # the others cost from 0.5 to 0.7
    assert reference_values(with_reference, "top1", costs=True) == {told: 74.0}
    alike = with_reference.assign(gmacs=0.9)
    for frame, costs in ((with_reference, False), (alike, True)):
        assert reference_values(frame, "top1", costs=costs) == {"GTP-ViT, M=1": 74.0}
    cells = with_reference[1:].copy()
    cells.loc[cells.index[0], ["difference", "difference_low", "difference_high"]] = np.nan
    points = gather(cells, ["alpha", "M"], fixed={"P": 3})
    assert points.frame["low"].isna().tolist() == [True, *[False] * 5]
    assert reference_values(cells, "top1") == {"GTP-ViT, M=1": cells["top1"].iloc[0]}


def test_a_reference_with_the_values_of_a_cell_is_no_point(at_budgets: pd.DataFrame) -> None:
    cells = at_budgets[(at_budgets["alpha"] == 0.1) & (at_budgets["M"] == 8)]
    frame = pd.concat([at_budgets[:2], cells]).drop(columns=["alpha", "M"])
    for columns in ({}, {"seed": [0, 1, 1, 0]}):  # P=5 is the budget 0.5
        points = gather(frame.assign(**columns), ["budget"]).frame
        assert dict(zip(points["budget"], points["value"], strict=True)) == {0.7: 69, 0.5: 67}
    comparison = frame.drop(columns="budget")
    assert len(gather(comparison.assign(strategy=list("abcd")), ["strategy"]).frame) == 4


def test_refused(grid: pd.DataFrame) -> None:
    two = pd.concat([grid, grid.assign(model="DeiT")])
    with pytest.raises(InputError, match=r"several values of model \(ViT, DeiT\).*model=ViT"):
        gather(two, ["alpha"])
    assert len(gather(two, ["alpha"], fixed={"model": "DeiT"}).frame) == 3
    assert len(gather(two, ["alpha", "model"]).frame) == 6
    with pytest.raises(InputError, match="needs the column theta"):
        gather(grid, ["theta"])
    with pytest.raises(InputError, match="no row has P=4"):
        gather(grid, ["alpha", "M"], fixed={"P": 4})
    with pytest.raises(InputError, match="finished cells"):
        gather(grid.assign(top1=np.nan), ["alpha"])
    with pytest.raises(ConfigError, match="level"):
        gather(grid, ["alpha"], level=95)
    shifted = grid.assign(P=grid["P"] + (grid["M"] == 8))
    with pytest.raises(InputError, match="was run for all values of P; fix P"):
        gather(shifted[shifted["alpha"] == 0.1], ["M"])
    for percent, images in ((101, 10), (-1, 10), (np.nan, 10), (50, 0)):
        with pytest.raises(InputError, match="percentage"):
            wilson(percent, images)


@pytest.mark.parametrize("right", [0, 1, 37, 100])
def test_wilson(right: int) -> None:
    own = stats.binomtest(right, 100).proportion_ci(0.9, method="wilson")
    assert wilson(right, 100, 0.9) == pytest.approx((100 * own.low, 100 * own.high))
