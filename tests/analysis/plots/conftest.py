"""Frames as studies make them, with values worked out by hand."""

import itertools

import pandas as pd
import pytest


@pytest.fixture
def grid() -> pd.DataFrame:
    """α × M × P, one row a cell; top1 = 70 + 10α + M/8 − P."""
    rows = []
    for alpha, m, count in itertools.product((0.1, 0.2, 0.4), (4, 8), (3, 5)):
        rows.append({
            "alpha": alpha, "M": m, "P": count, "strategy": f"gtp:{alpha},{m},{count}",
            "method": "gtp", "model": "ViT", "data": "digits", "seed": 0, "dtype": "float32",
            "gmacs": 1 - count / 10, "images": 1000, "top1": 70 + 10 * alpha + m / 8 - count,
            "status": "done", "error": "",
        })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def with_dense(grid: pd.DataFrame) -> pd.DataFrame:
    """The same, and the dense model at 75%."""
    dense = pd.DataFrame([{"method": "dense", "top1": 75.0, "model": "ViT", "data": "digits"}])
    return pd.concat([grid, dense])[list(grid.columns)]


@pytest.fixture
def with_reference(grid: pd.DataFrame) -> pd.DataFrame:
    """The cells compared with a strategy that is none of them, at 74%; its row is the first."""
    gap = grid["top1"] - 74
    ends = {"difference": gap, "difference_low": gap - 1, "difference_high": gap + 1}
    told = {"model": "ViT", "data": "digits", "method": "gtp", "seed": 0, "dtype": "float32"}
    own = [{"strategy": "gtp:M=1", "top1": 74.0, "gmacs": 0.9, **told}]
    frame = pd.concat([pd.DataFrame(own), grid.assign(**ends)], ignore_index=True)
    frame = frame.assign(difference_from="gtp:M=1", difference_level=0.95)
    return frame[[*grid, *frame.columns.difference(grid.columns)]]


@pytest.fixture
def at_budgets(with_reference: pd.DataFrame) -> pd.DataFrame:
    """The same at two budgets, each compared with a reference at its own, at 74% and 75%."""
    cells = with_reference[1:].rename(columns={"P": "budget"})
    cells = cells.assign(budget=cells["budget"].map({3: 0.7, 5: 0.5}), gmacs=0.8)
    own = with_reference[:1].rename(columns={"P": "budget"})
    both = [own.assign(budget=b, top1=top1) for b, top1 in ((0.5, 74.0), (0.7, 75.0))]
    frame = pd.concat([*both, cells], ignore_index=True)
    return frame.assign(difference_from=[f"gtp:M=1@{b}" for b in frame["budget"]])


@pytest.fixture
def comparison() -> pd.DataFrame:
    """Two methods at two budgets and the dense model, timed and paired."""
    rows = [{"method": "dense", "gmacs": 4.0, "top1": 80.0, "images_per_second": 100.0,
             "speedup": 1.0, "speedup_low": 0.98, "speedup_high": 1.02}]  # fmt: skip
    for i, method in enumerate(["gtp", "tome"]):
        for gmacs in (2.0, 3.0):
            loss = 2 / gmacs + i
            rows.append({
                "method": method, "gmacs": gmacs, "top1": 80 - loss, "difference": -loss,
                "difference_low": -loss - 1, "difference_high": -loss + 1,
                "images_per_second": 300 / gmacs, "speedup": 3 / gmacs,
                "speedup_low": 2.9 / gmacs, "speedup_high": 3.3 / gmacs,
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(model="ViT", data="digits", images=1000)
