"""Engines agree with each other, with NumPy, and about dead tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tokenred.attention import (
    QKV,
    AttentionSpec,
    AttentionStat,
    FusedEngine,
    PlainEngine,
    ScoreMod,
    attend,
    pick_engine,
    size_bias,
)
from tokenred.core.errors import ConfigError, PartError
from tokenred.core.state import TokenState
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
DOUBLE = (torch.float64,)
FREE = (AttentionStat.keys(), AttentionStat.values())
EVERY = (
    AttentionStat.diagonal("max"),
    AttentionStat.diagonal("mean"),
    AttentionStat.column_sum("max"),
    AttentionStat.column_sum("mean", exclude_self=False),
    AttentionStat.map(),
    *FREE,
)


def softmax_map(heads: QKV, bias: torch.Tensor | None) -> np.ndarray:
    q, k = heads.q.double().numpy(), heads.k.double().numpy()
    logits = np.einsum("bhid,bhjd->bhij", q, k) * heads.scale
    if bias is not None:
        logits = logits + bias.double().numpy()[:, None, None, :]
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def bias_of(state: TokenState) -> torch.Tensor | None:
    return None if state.size is None else size_bias(state.size)


@QUICK
@given(draw.samples(dtypes=DOUBLE, sizes=("none", "counts", "fractions", "dead")))
def test_the_plain_engine_is_attention(sample: Sample) -> None:
    heads, bias = sample.qkv, bias_of(sample.state)
    out, stats = PlainEngine()(heads, AttentionSpec(EVERY, key_bias=bias), sample.state)
    attention = softmax_map(heads, bias)
    np.testing.assert_allclose(out.numpy(), attention @ heads.v.numpy(), atol=1e-9)
    np.testing.assert_allclose(
        stats[AttentionStat.map()].numpy(), attention.mean(axis=1), atol=1e-10
    )
    assert set(stats.values) == set(EVERY)


@QUICK
@given(draw.samples(dtypes=DOUBLE, sizes=("none", "counts", "fractions", "dead")))
def test_the_fused_engine_is_the_plain_one(sample: Sample) -> None:
    state, requires = sample.state, FREE
    if state.cls_index is not None:
        requires = (
            *requires,
            AttentionStat.logits_row("cls"),
            AttentionStat.logits_row("cls", "max"),
        )
    request = AttentionSpec(requires, key_bias=bias_of(state))
    assert FusedEngine().supports(sample.qkv, request)
    plain, expected = PlainEngine()(sample.qkv, request, state)
    fused, found = FusedEngine()(sample.qkv, request, state)
    torch.testing.assert_close(fused, plain, atol=1e-9, rtol=1e-9)
    assert found.values.keys() == expected.values.keys()
    for need in requires:
        assert torch.equal(found[need], expected[need])


@QUICK
@given(draw.samples(sizes=("dead",), dtypes=draw.DTYPES[:2]))
def test_dead_tokens_get_no_attention_and_change_nothing(sample: Sample) -> None:
    state, heads = sample.state, sample.qkv
    dead = state.size == 0
    request = AttentionSpec((AttentionStat.map(),), key_bias=size_bias(state.size))
    changed = replace(
        heads,
        k=torch.where(dead[:, None, :, None], 7.0, heads.k),
        v=torch.where(dead[:, None, :, None], 99.0, heads.v),
    )
    for engine in (PlainEngine(), FusedEngine()):
        wanted = request if isinstance(engine, PlainEngine) else replace(request, requires=())
        out, stats = engine(heads, wanted, state)
        other, _ = engine(changed, wanted, state)
        torch.testing.assert_close(other, out)
        assert bool(out.isfinite().all())
        if wanted.requires:
            taken = stats[AttentionStat.map()].sum(dim=1)
            assert not taken[dead].any()
            torch.testing.assert_close(
                stats[AttentionStat.map()].sum(dim=2), torch.ones_like(taken)
            )


@QUICK
@given(draw.samples(dtypes=DOUBLE, flavours=("normal",), sizes=("none",)))
def test_theta_reaches_the_output_and_the_statistics(sample: Sample) -> None:
    heads, state = sample.qkv, sample.state
    request = AttentionSpec((AttentionStat.column_sum("mean", exclude_self=False),), theta=0.5)
    assert not FusedEngine().supports(heads, request)
    out, stats = PlainEngine()(heads, request, state)
    attention = softmax_map(heads, None)
    b, h, total, _ = attention.shape
    flat = attention.reshape(b, h, -1)
    kept = -(-total * total // 2)
    threshold = np.sort(flat, axis=-1)[..., -kept]
    sparse = np.where(attention >= threshold[..., None, None] * (1 - 1e-12), attention, 0)
    np.testing.assert_allclose(out.numpy(), sparse @ heads.v.numpy(), atol=1e-9)
    columns = sparse.sum(axis=-2)[..., state.num_prefix :].mean(axis=1)
    np.testing.assert_allclose(stats[request.requires[0]].numpy(), columns, atol=1e-9)


class Masked(ScoreMod):
    """Takes key 0 out."""

    def __call__(self, logits: torch.Tensor, state: TokenState) -> torch.Tensor:
        first = torch.arange(logits.shape[-1]) == 0
        return logits.masked_fill(first, -torch.inf)


def _sample() -> tuple[QKV, TokenState]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 6, 4, generator=generator) for _ in range(3))
    state = TokenState(torch.zeros(2, 6, 12), torch.arange(4).expand(2, 4), 2, (2, 2), cls_index=0)
    return QKV(q, k, v, 0.5), state


def test_an_edit_changes_the_logits_before_the_softmax() -> None:
    heads, state = _sample()
    request = AttentionSpec((AttentionStat.map(),), score_mods=(Masked(),))
    assert request.needs_map
    _, stats = attend(heads, request, state)
    assert not stats[AttentionStat.map()][:, :, 0].any()
    torch.testing.assert_close(stats[AttentionStat.map()].sum(dim=-1), torch.ones(2, 6))


@pytest.mark.parametrize(
    ("request_", "needs_map"),
    [
        (AttentionSpec(), False),
        (AttentionSpec(FREE), False),
        (AttentionSpec((AttentionStat.logits_row(),)), False),
        (AttentionSpec(key_bias=torch.zeros(1, 1)), False),
        (AttentionSpec((AttentionStat.diagonal(),)), True),
        (AttentionSpec((AttentionStat.column_sum(),)), True),
        (AttentionSpec((AttentionStat.row(),)), True),
        (AttentionSpec((AttentionStat.map(),)), True),
        (AttentionSpec(theta=0.9), True),
        (AttentionSpec(score_mods=(Masked(),)), True),
    ],
)
def test_the_map_is_held_only_where_it_is_looked_at(
    request_: AttentionSpec, needs_map: bool
) -> None:
    heads, _ = _sample()
    assert request_.needs_map is needs_map
    assert FusedEngine().supports(heads, request_) is not needs_map
    assert PlainEngine().supports(heads, request_)


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_what_was_not_asked_for_is_not_there(engine: str) -> None:
    heads, state = _sample()
    _, stats = attend(heads, AttentionSpec((AttentionStat.keys(),)), state, pick_engine(engine))
    assert torch.equal(stats[AttentionStat.keys()], heads.k)
    with pytest.raises(PartError, match=r"diagonal.* was not computed for this block"):
        stats[AttentionStat.diagonal()]


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one of auto, plain, .*triton, got 'flash'"):
        pick_engine("flash")


def test_dropout_is_applied_to_the_map_and_not_to_the_statistics() -> None:
    heads, state = _sample()
    torch.manual_seed(0)
    out, stats = PlainEngine()(
        replace(heads, dropout=0.9), AttentionSpec((AttentionStat.map(),)), state
    )
    whole, same = PlainEngine()(heads, AttentionSpec((AttentionStat.map(),)), state)
    assert torch.equal(stats[AttentionStat.map()], same[AttentionStat.map()])
    assert not torch.allclose(out, whole)
