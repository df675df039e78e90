from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention.edits import sparsify
from tokenred.attention.threshold import kth_largest, sparsify_


@settings(deadline=None, max_examples=150)
@given(
    size=st.integers(1, 9000),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([1, 2, 5, 100, 0, 0]),
    order=st.sampled_from(["random", "sorted", "skewed", "blocks"]),
)
def test_kth_largest_is_exact(size: int, share: float, seed: int, levels: int, order: str) -> None:
    rng = np.random.default_rng(seed)
    entries = rng.random(size).astype(np.float32)
    if levels:  # ties
        entries = np.floor(entries * levels) / levels
    if order == "sorted":
        entries = np.sort(entries)
    elif order == "skewed":
        entries **= 20
    elif order == "blocks":  # what a stride of 37 sees is not what there is
        entries[::37] = 2.0
    k = max(1, min(size, round(share * size)))
    found, reached = kth_largest(entries, k)
    assert found == np.sort(entries)[size - k]
    assert reached == np.count_nonzero(entries >= found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("theta", [0.01, 0.3, 0.6, 0.999, 1.0])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("sharp", [0.1, 3.0, 200.0])
def test_in_place_equals_the_definition(
    dtype: torch.dtype, theta: float, reference: bool, sharp: float
) -> None:
    torch.manual_seed(int(theta * 100))
    # Sharp maps underflow to many zeros; the repeated row and the constant map are ties.
    maps = (torch.randn(2, 3, 23, 23, dtype=dtype) * sharp).softmax(dim=-1)
    maps[0, 0, 5] = maps[0, 0, 6]
    maps[1, 1] = 1 / 23
    expected = sparsify(maps, theta, reference)
    done = sparsify_(maps, theta, reference)
    assert done.data_ptr() == maps.data_ptr()
    assert torch.equal(done, expected)
