"""Tokens go evenly over the grid, whatever they hold, and what stays is nested."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention import AttentionStats
from tokenred.core.state import TokenState
from tokenred.strategies.selectors import GridDrop
from tokenred.strategies.selectors.grid_drop import dither_order

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
SIDES = st.integers(1, 20)


def kept(grid: tuple[int, int], stay: int) -> list[tuple[int, int]]:
    n = grid[0] * grid[1]
    state = TokenState(torch.zeros(1, n + 1, 1), torch.arange(n)[None], 1, grid)
    chosen = GridDrop()(state, AttentionStats(), n - stay)
    assert sorted(chosen.keep[0].tolist() + chosen.drop[0].tolist()) == list(range(n))
    return [divmod(place, grid[1]) for place in chosen.keep[0].tolist()]


def test_by_hand() -> None:
    assert dither_order(torch.arange(16)[None], (4, 4)).reshape(4, 4).tolist() == [
        [0, 8, 2, 10],
        [12, 4, 14, 6],
        [3, 11, 1, 9],
        [15, 7, 13, 5],
    ]
    assert kept((8, 8), 16) == [(r, c) for r in range(0, 8, 2) for c in range(0, 8, 2)]
    assert kept((8, 8), 32) == [(r, c) for r in range(8) for c in range(8) if (r + c) % 2 == 0]
    assert kept((1, 6), 3) == [(0, 0), (0, 2), (0, 4)]
    assert kept((6, 1), 3) == [(0, 0), (2, 0), (4, 0)]


@QUICK
@given(SIDES, SIDES, st.data())
def test_no_hole_is_wider_than_the_share_allows(rows: int, columns: int, data: st.DataObject):  # type: ignore[no-untyped-def]
    n = rows * columns
    stay = data.draw(st.integers(1, n))
    places = torch.tensor(kept((rows, columns), stay))
    everywhere = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    apart = (everywhere[:, None] - places[None]).abs().amax(dim=-1).amin(dim=1)
    # The coarsest lattice that fits among those that stay is whole.
    spacing = 1
    while math.ceil(rows / spacing) * math.ceil(columns / spacing) > stay:
        spacing *= 2
    assert int(apart.max()) <= max(0, spacing - 1)


@QUICK
@given(SIDES, SIDES, st.data())
def test_fewer_lie_among_more(rows: int, columns: int, data: st.DataObject):  # type: ignore[no-untyped-def]
    many = data.draw(st.integers(1, rows * columns))
    few = data.draw(st.integers(1, many))
    assert set(kept((rows, columns), few)) <= set(kept((rows, columns), many))


def test_places_follow_the_position_and_unknown_ones_stay() -> None:
    index = torch.tensor([[15, -1, 0, 5, 10], [0, 10, -1, 15, 12]])
    state = TokenState(torch.randn(2, 5, 3), index, 0, (4, 4))
    chosen = GridDrop()(state, AttentionStats(), 2)
    # Their turns: 5, −1, 0, 4, 1 and 0, 1, −1, 5, 15.
    assert chosen.keep.tolist() == [[1, 2, 4], [0, 1, 2]]
    assert chosen.drop.tolist() == [[3, 0], [3, 4]]
    assert chosen.score is not None
    assert chosen.score.tolist() == [[-5, 1, 0, -4, -1], [0, -1, 1, -5, -15]]
