"""Evo-ViT's slow and fast tokens: stages, counts, what the rest gets."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import ConfigError
from tokenred.core.tensors import gather_tokens
from tokenred.strategies.routers import SlowFast
from tokenred.testing import Sample, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=20, deadline=None, derandomize=True)
KEY = "global_cls_attention"
ROW = AttentionStat.row("cls", "mean")


@pytest.mark.parametrize(
    ("depth", "stages"),
    [
        (12, [range(4, 8), range(8, 12)]),
        (16, [range(5, 10), range(10, 16)]),
        (4, [range(1, 2), range(2, 4)]),
        (2, [range(1, 2)]),
        (1, []),
    ],
)
def test_stages(depth: int, stages: list[range]) -> None:
    router = SlowFast()
    active = [layer for layer in range(depth) if router.active(layer, depth, 196)]
    assert active == [layer for stage in stages for layer in stage]
    ends = [layer for layer in active if router.rejoins(layer, depth)]
    assert ends == [stage[-1] for stage in stages]
    watched = [layer for layer in range(depth) if router.watches(layer, depth)]
    assert watched == ([active[0] - 1] if active else [])


def test_counts() -> None:
    # The representative is one of them.
    assert SlowFast().active(4, 12, 196) == 99
    assert SlowFast(representative=False).active(4, 12, 196) == 98
    assert SlowFast(0.7).active(4, 12, 10) == 8  # 0.7 · 10 is 7
    assert SlowFast().active(4, 12, 7) == 3 + 1
    assert SlowFast(0.1).active(4, 12, 7) == 1 + 1  # there is always one
    assert SlowFast(1.0).active(4, 12, 196) is None
    assert not any(SlowFast(1.0).watches(layer, 12) for layer in range(12))
    every = SlowFast(stagewise=False)
    assert [layer for layer in range(12) if every.rejoins(layer, 12)] == list(range(3, 12))


def informed(sample: Sample, g: torch.Tensor) -> Sample:
    state = replace(sample.state, memory={KEY: g, "other": g})
    return replace(sample, state=state)


@QUICK
@given(
    draw.samples(needs_cls=True, dtypes=(torch.float64,)),
    st.sampled_from((0.1, 0.5, 0.8)),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 999),
)
def test_there_and_back(
    sample: Sample, rate: float, representative: bool, levels: int, seed: int
) -> None:
    state = sample.state
    b, n = state.index.shape
    router = SlowFast(rate, representative=representative)
    count = router.active(5, 12, n)
    if count is None:
        return
    generator = torch.Generator().manual_seed(seed)
    # With ties, and with nothing that anybody looks at.
    g = torch.rand(b, n, generator=generator, dtype=torch.float64)
    g = g if levels == 2 else torch.round(g * levels)
    state = informed(sample, g).state
    active, resting = router.split(state, AttentionStats(), count)
    assert active.num_tokens == count == active.index.shape[1] == active.memory[KEY].shape[1]
    assert active.size is None or active.size.shape == active.x.shape[:2]
    k = count - representative
    order = g.sort(dim=1, descending=True, stable=True).indices
    chosen, rest = order[:, :k].sort(dim=1).values, order[:, k:]
    assert torch.equal(active.index[:, :k], state.index.gather(1, chosen))
    if active.size is not None and representative:
        torch.testing.assert_close(active.size.sum(dim=1), state.size.sum(dim=1))
    # Untouched, all come back as they were.
    together = router.join(state, active, resting, AttentionStats())
    assert torch.equal(together.x, state.x)
    assert torch.equal(together.index, state.index)
    assert torch.equal(together.memory[KEY], g)
    assert together.size is state.size
    if representative:
        weight = g.gather(1, rest)
        weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, 1)
        mean = (weight[..., None] * gather_tokens(state.image, rest)).sum(1)
        torch.testing.assert_close(active.x[:, -1], mean / weight.sum(1, keepdim=True))
        assert (active.index[:, -1] == -1).all()


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="layers must be ascending block numbers from 1 on"):
        SlowFast(layers=(0, 4))
    with pytest.raises(ConfigError, match=r"got blocks \[12\]"):
        SlowFast(layers=(4, 12)).check(model_info(8, (2, 2)))
    with pytest.raises(ConfigError, match="CLS token"):
        SlowFast().check(model_info(8, (2, 2), cls_index=None))
