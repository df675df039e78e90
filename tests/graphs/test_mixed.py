"""The mixed graph is the union of the two others."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.graphs import Mixed, Semantic, Spatial
from tokenred.testing import draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@QUICK
@given(st.data())
def test_edges_are_the_union_and_weights_equation_9(data: st.DataObject) -> None:
    drawn = draw.samples(whole=True, dtypes=DTYPES)
    state = data.draw(drawn.filter(lambda sample: sample.state.num_patches > 1)).state
    x, grid, m = state.image, state.grid, data.draw(st.integers(1, state.num_patches - 1))
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
