"""Tokens put back on the grid, by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenred.core.errors import InputError
from tokenred.reduced.unreduce import features_left, fill_grid, nearest_owners, own_places

# Two images on a grid of 2×3 with two tokens each.
TOKENS = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
INDEX = torch.tensor([[0, 5], [-1, 1]])
OWNER = torch.tensor([[0, -1, 1, 0, -1, 1], [-1, 1, -1, -1, -1, -1]])
LAST = torch.arange(10.0, 22.0).reshape(2, 6, 1)


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("zero", [[1, 0, 2, 1, 0, 2], [0, 4, 0, 0, 0, 0]]),
        ("last", [[1, 11, 2, 1, 14, 2], [16, 4, 18, 19, 20, 21]]),
        ("own", [[1, 11, 12, 13, 14, 2], [16, 4, 18, 19, 20, 21]]),
        # Of two equally near the first in raster order.
        ("nearest", [[1, 1, 2, 1, 1, 2], [4, 4, 4, 4, 4, 4]]),
    ],
)
def test_fill_grid(fill: str, expected: list[list[float]]) -> None:
    found = fill_grid(TOKENS, INDEX, OWNER, (2, 3), fill, LAST)
    assert torch.equal(found[..., 0], torch.tensor(expected, dtype=torch.float32))


def test_without_owners_a_token_has_its_own_place() -> None:
    found = fill_grid(TOKENS, INDEX, None, (2, 3), "zero")
    assert found[..., 0].tolist() == [[1, 0, 0, 0, 0, 2], [0, 4, 0, 0, 0, 0]]


def test_nobody_owns_anything() -> None:
    nobody = torch.full((1, 6), -1)
    for fill in ("nearest", "zero", "last"):
        assert not fill_grid(TOKENS[:1], INDEX[:1], nobody, (2, 3), fill).any()


def test_nan_of_one_place_stays_there() -> None:
    last = LAST.clone()
    last[:, 0] = torch.nan
    assert fill_grid(TOKENS, INDEX, OWNER, (2, 3), "last", last).isnan().sum() == 1


def test_another_width() -> None:
    with pytest.raises(InputError, match="width 1 beside tokens of width 2"):
        fill_grid(TOKENS.expand(-1, -1, 2), INDEX, OWNER, (2, 3), "last", LAST)
    wide = fill_grid(TOKENS.expand(-1, -1, 2), INDEX, OWNER, (2, 3), "zero", LAST)
    assert wide.shape == (2, 6, 2)


@given(st.integers(1, 4), st.integers(1, 4), st.data())
@settings(max_examples=30, deadline=None)
def test_nearest_is_nearest(rows: int, columns: int, data: st.DataObject) -> None:
    n = rows * columns
    has = data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    owner = torch.where(torch.tensor(has), torch.arange(n), -1)[None]
    found = nearest_owners(owner, (rows, columns))[0].tolist()
    for patch, other in enumerate(found):
        distance = [
            (patch // columns - at // columns) ** 2 + (patch % columns - at % columns) ** 2
            for at in range(n)
        ]
        assert has[other]
        assert distance[other] == min(d for d, here in zip(distance, has, strict=True) if here)


def test_own_places() -> None:
    index = torch.tensor([[4, -1, 0], [2, 5, -1]])
    expected = torch.tensor([[2, -1, -1, -1, 0, -1], [-1, -1, 0, -1, -1, 1]])
    assert torch.equal(own_places(index, 6), expected)


def test_features_left() -> None:
    def went(values: list[list[float]], places: list[list[int]]) -> tuple[Tensor, Tensor]:
        return torch.tensor(values)[..., None], torch.tensor(places)

    found = features_left([went([[5.0, 6.0]], [[1, -1]]), went([[7.0]], [[3]])], 4)
    assert found is not None
    assert found[..., 0].tolist() == [[0, 5, 0, 7]]
    assert features_left([], 4) is None
