"""The mixed graph is the union of the two others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.core.errors import ConfigError
from tokenred.graphs import Mixed, Semantic, Spatial
from tokenred.testing import draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@QUICK
@given(st.data())
def test_edges_are_the_union_and_weights_equation_9(data: st.DataObject) -> None:
    grid = data.draw(draw.grids(min_patches=2))
    n = grid[0] * grid[1]
    x = data.draw(draw.features(n, dtypes=DTYPES))
    m = data.draw(st.integers(1, n - 1))
    mixed = Mixed(M=m)(x, grid)
    spatial = Spatial()(x, grid).dense(normalized=False)
    semantic = Semantic(M=m)(x, grid).dense(normalized=False)
    union = torch.maximum(semantic, spatial.expand_as(semantic))
    adjacency = mixed.dense(normalized=False)
    assert torch.equal(adjacency, union)
    assert mixed.directed
    assert mixed.neighbours.shape[2] == 8 + m
    numbers = union.double().numpy()
    degree = numbers.sum(axis=2)
    assert (degree >= m).all()
    assert (degree <= m + 8).all()
    expected = numbers / np.sqrt(degree[:, :, None] * degree[:, None, :])
    np.testing.assert_allclose(mixed.dense().numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(mixed.degree().numpy(), degree)


@pytest.mark.parametrize("m", [0, -3, 2.0])
def test_less_than_one_neighbour_is_refused(m: int) -> None:
    with pytest.raises(ConfigError, match="Mixed: M must be a whole number of at least 1"):
        Mixed(M=m)


def test_as_many_neighbours_as_tokens_are_refused() -> None:
    for refuse in (
        lambda: Mixed(M=6)(torch.zeros(1, 6, 2), (2, 3)),
        lambda: Mixed(M=6).check(model_info(8, (2, 3))),
    ):
        with pytest.raises(ConfigError, match=r"Mixed: M must be below .* Use M between 1 and 5"):
            refuse()


def test_the_authors_program_takes_one_more_without_a_cls_token() -> None:
    without = replace(model_info(8, (3, 3)), cls_index=None)
    assert Mixed(M=4, reference=True).build(without) == Mixed(M=5)
    assert Mixed(M=4, reference=True).build(model_info(8, (3, 3))) == Mixed(M=4)
