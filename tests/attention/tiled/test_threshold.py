import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenred.attention.tiled.threshold as module
from tokenred.attention.score_mods import SLACK, kept_entries, sparsify
from tokenred.attention.tiled.threshold import kth_largest, sparsified


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    size=st.integers(1, 9000),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([1, 2, 5, 100, 0, 0]),
    order=st.sampled_from(["random", "sorted", "skewed", "blocks"]),
)
def test_kth_largest_is_exact(size: int, share: float, seed: int, levels: int, order: str) -> None:
    entries = np.random.default_rng(seed).random(size).astype(np.float32)
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
@pytest.mark.parametrize("small", [0, 1 << 17])
def test_it_equals_the_definition(
    dtype: torch.dtype, theta: float, reference: bool, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SMALL", small)
    monkeypatch.setattr(module, "_MANY", 1)
    # Sharp maps underflow to many zeros; the repeated row and the constant map are ties.
    for sharp in (0.1, 3.0, 200.0):
        torch.manual_seed(int(theta * 100))
        maps = (torch.randn(2, 3, 23, 23, dtype=dtype) * sharp).softmax(dim=-1)
        maps[0, 0, 5] = maps[0, 0, 6]
        maps[1, 1] = 1 / 23
        expected = sparsify(maps, theta, reference)
        before, out = maps.clone(), torch.full((6, 23**2), torch.nan, dtype=dtype)
        found, shares = sparsified(maps, theta, reference, out=out)
        assert torch.equal(found, expected)
        assert torch.equal(maps, before)
        assert found.data_ptr() == (out if (expected != maps).any() else maps).data_ptr()
        assert shares == pytest.approx(np.full(6, kept_entries(23, theta, reference) / 23**2))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    tokens=st.integers(2, 120),
    theta=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["softmax", "sharp", "levels", "constant", "stripes", "rows"]),
    small=st.sampled_from([0, 1 << 17]),
)
def test_the_fast_way_is_within_its_slack(
    tokens: int, theta: float, seed: int, kind: str, small: int
) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(1, 2, tokens, tokens)
    if kind == "sharp":
        logits *= 100
    elif kind == "levels":
        logits = logits.round()
    elif kind == "constant":
        logits *= 0
    elif kind == "stripes":  # what the sample's stride sees is not what there is
        logits.view(-1)[::37] = 9.0
    elif kind == "rows":
        logits[:] = logits[:, :, :1]
    before = logits.softmax(dim=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", small)
        after, shares = sparsified(before, theta, fast=True)
    stays = after == before
    assert torch.equal(after, torch.where(stays, before, 0))
    # Whole entries may not come nearer.
    assert np.abs(shares - theta).max() <= max(SLACK, 1 / tokens**2) + 1e-9
    for share, one, was in zip(shares, after[0], before[0], strict=True):
        # Entries that were zero already count neither way.
        gone = int(((one == 0) & (was > 0)).sum())
        assert gone <= tokens**2 * (1 - theta + SLACK) + 1
        if bool((was > 0).all()):
            assert float(share) == pytest.approx(int((one > 0).sum()) / tokens**2)
        # No entry that stays is below one that goes.
        if gone:
            assert one[one > 0].min() >= was[(one == 0) & (was > 0)].max()


@pytest.mark.parametrize("tokens", [17, 197, 400])
@pytest.mark.parametrize("reference", [False, True])
def test_the_fast_way_is_the_same_alone_and_in_a_batch(tokens: int, reference: bool) -> None:
    generator = torch.Generator().manual_seed(tokens)
    logits = torch.randn(5, 2, tokens, tokens, generator=generator)
    logits[1] *= 30
    logits[2] = logits[2].round()
    logits[3].view(-1)[::37] = 9.0
    logits[4] *= 0
    maps = logits.softmax(dim=-1)
    together, shares = sparsified(maps, 0.7, reference, fast=True)
    alone = [sparsified(image[None], 0.7, reference, fast=True) for image in maps]
    assert torch.equal(together, torch.cat([one for one, _ in alone]))
    np.testing.assert_array_equal(shares, np.concatenate([share for _, share in alone]))
    assert np.abs(shares - 0.7).max() <= max(SLACK, 2 / tokens**2)
