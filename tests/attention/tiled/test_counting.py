import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tokenred.attention.tiled.counting as module
from tokenred.attention.tiled.counting import mark_largest

KINDS = ["even", "skewed", "levels", "constant", "blocks", "sorted"]


def drawn(count: int, size: int, seed: int, kinds: list[str], dtype: torch.dtype) -> Tensor:
    maps = torch.rand(count, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    maps = maps * 0.999 + 0.001
    for at, one in enumerate(maps):
        kind = kinds[at % len(kinds)]
        if kind == "skewed":
            one.pow_(15)
        elif kind == "levels":
            one.mul_(4).ceil_().div_(4)
        elif kind == "constant":
            one.fill_(0.25)
        elif kind == "blocks":  # what a stride sees is not what there is
            one[::37] = 1.0
        elif kind == "sorted":
            one.copy_(one.sort().values)
    return maps


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    count=st.integers(1, 12),
    size=st.integers(1, 4000),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_it_marks_the_k_largest(
    count: int, size: int, share: float, seed: int, kinds: list[str], dtype: torch.dtype
) -> None:
    maps = drawn(count, size, seed, kinds, dtype)
    before, k = maps.clone(), max(1, round(share * size))
    mark = torch.full_like(maps, torch.nan)
    reached = mark_largest(maps, k, mark)
    assert torch.equal(maps, before)
    # The definition: 1 for the k largest, the first ones of equal ones.
    order = maps.sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(mark, torch.zeros_like(maps).scatter(1, order[:, :k], 1.0))
    assert reached.tolist() == [k] * count


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    st.integers(1, 9),
    st.integers(1, 4000),
    st.floats(0, 1),
    st.integers(0, 60),
    st.integers(0, 2**31),
)
def test_with_slack_a_cut_is_enough(
    count: int, size: int, share: float, slack: int, seed: int
) -> None:
    maps = drawn(count, size, seed, ["even"], torch.float32)
    k = max(1, round(share * size))
    mark = torch.empty_like(maps)
    reached = mark_largest(maps, k, mark, slack)
    assert torch.equal(mark.sum(dim=1).long(), torch.from_numpy(reached))
    assert (np.abs(reached - k) <= slack).all()
    for one, marked in zip(maps, mark > 0, strict=True):
        if marked.any() and not marked.all():
            assert one[marked].min() > one[~marked].max()
        if slack:  # alone as in a batch
            alone = torch.empty_like(one[None])
            mark_largest(one[None].contiguous(), k, alone, slack)
            assert torch.equal(alone[0] > 0, marked)


def test_a_map_that_is_not_a_number_is_left_as_it_is() -> None:
    maps = drawn(7, 900, 0, ["even"], torch.float32)
    maps[3, 30:800] = torch.nan
    mark = torch.empty_like(maps)
    assert mark_largest(maps, 540, mark).tolist() == [540] * 7
    assert mark[3].all()
    assert (mark[[0, 1, 2, 4, 5, 6]].sum(dim=1) == 540).all()


@pytest.mark.parametrize("theta", [0.2, 0.6, 0.9])
def test_a_handful_of_counts_is_enough(theta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[np.ndarray] = []
    count = module._count

    def counted(*given: object) -> np.ndarray:
        made.append(count(*given))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(module, "_count", counted)
    logits = torch.randn(24, 150, 150, generator=torch.Generator().manual_seed(0))
    maps = logits.softmax(dim=-1).flatten(1)
    mark_largest(maps, int(theta * 150**2), torch.empty_like(maps))
    assert len(made) <= 10
    # What is left to be put in order is little.
    assert np.count_nonzero(made[-1] != int(theta * 150**2)) <= 4
