"""Engines agree with each other, with NumPy, and about dead tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tokenred.attention import (
    AttentionEdit,
    FusedEngine,
    Heads,
    Need,
    PlainEngine,
    Request,
    attend,
    pick_engine,
    size_bias,
)
from tokenred.core.errors import ConfigError, PartError
from tokenred.core.state import TokenState
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
DOUBLE = (torch.float64,)
FREE = (Need.keys(), Need.values())
EVERY = (
    Need.diagonal("max"),
    Need.diagonal("mean"),
    Need.received("max"),
    Need.received("mean", exclude_self=False),
    Need.map(),
    *FREE,
)


def softmax_map(heads: Heads, bias: torch.Tensor | None) -> np.ndarray:
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
    heads, bias = sample.heads, bias_of(sample.state)
    out, stats = PlainEngine()(heads, Request(EVERY, key_bias=bias), sample.state)
    attention = softmax_map(heads, bias)
    np.testing.assert_allclose(out.numpy(), attention @ heads.v.numpy(), atol=1e-9)
    np.testing.assert_allclose(stats[Need.map()].numpy(), attention.mean(axis=1), atol=1e-10)
    assert set(stats.values) == set(EVERY)


@QUICK
@given(draw.samples(dtypes=DOUBLE, sizes=("none", "counts", "fractions", "dead")))
def test_the_fused_engine_is_the_plain_one(sample: Sample) -> None:
    state, needs = sample.state, FREE
    if state.cls_index is not None:
        needs = (*needs, Need.logits_row("cls"), Need.logits_row("cls", "max"))
    request = Request(needs, key_bias=bias_of(state))
    assert FusedEngine().supports(sample.heads, request)
    plain, expected = PlainEngine()(sample.heads, request, state)
    fused, found = FusedEngine()(sample.heads, request, state)
    torch.testing.assert_close(fused, plain, atol=1e-9, rtol=1e-9)
    assert found.values.keys() == expected.values.keys()
    for need in needs:
        assert torch.equal(found[need], expected[need])


@QUICK
@given(draw.samples(sizes=("dead",), dtypes=draw.DTYPES[:2]))
def test_dead_tokens_get_no_attention_and_change_nothing(sample: Sample) -> None:
    state, heads = sample.state, sample.heads
    dead = state.size == 0
    request = Request((Need.map(),), key_bias=size_bias(state.size))
    changed = replace(
        heads,
        k=torch.where(dead[:, None, :, None], 7.0, heads.k),
        v=torch.where(dead[:, None, :, None], 99.0, heads.v),
    )
    for engine in (PlainEngine(), FusedEngine()):
        wanted = request if isinstance(engine, PlainEngine) else replace(request, needs=())
        out, stats = engine(heads, wanted, state)
        other, _ = engine(changed, wanted, state)
        torch.testing.assert_close(other, out)
        assert bool(out.isfinite().all())
        if wanted.needs:
            taken = stats[Need.map()].sum(dim=1)
            assert not taken[dead].any()
            torch.testing.assert_close(stats[Need.map()].sum(dim=2), torch.ones_like(taken))


@QUICK
@given(draw.samples(dtypes=DOUBLE, flavours=("normal",), sizes=("none",)))
def test_theta_reaches_the_output_and_the_statistics(sample: Sample) -> None:
    heads, state = sample.heads, sample.state
    request = Request((Need.received("mean", exclude_self=False),), theta=0.5)
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
    np.testing.assert_allclose(stats[request.needs[0]].numpy(), columns, atol=1e-9)


class Masked(AttentionEdit):
    """Takes key 0 out."""

    def __call__(self, logits: torch.Tensor, state: TokenState) -> torch.Tensor:
        first = torch.arange(logits.shape[-1]) == 0
        return logits.masked_fill(first, -torch.inf)


def _sample() -> tuple[Heads, TokenState]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 6, 4, generator=generator) for _ in range(3))
    state = TokenState(torch.zeros(2, 6, 12), torch.arange(4).expand(2, 4), 2, (2, 2), cls_index=0)
    return Heads(q, k, v, 0.5), state


def test_an_edit_changes_the_logits_before_the_softmax() -> None:
    heads, state = _sample()
    request = Request((Need.map(),), edits=(Masked(),))
    assert request.needs_map
    _, stats = attend(heads, request, state)
    assert not stats[Need.map()][:, :, 0].any()
    torch.testing.assert_close(stats[Need.map()].sum(dim=-1), torch.ones(2, 6))


@pytest.mark.parametrize(
    ("request_", "needs_map"),
    [
        (Request(), False),
        (Request(FREE), False),
        (Request((Need.logits_row(),)), False),
        (Request(key_bias=torch.zeros(1, 1)), False),
        (Request((Need.diagonal(),)), True),
        (Request((Need.received(),)), True),
        (Request((Need.row(),)), True),
        (Request((Need.map(),)), True),
        (Request(theta=0.9), True),
        (Request(edits=(Masked(),)), True),
    ],
)
def test_the_map_is_held_only_where_it_is_looked_at(request_: Request, needs_map: bool) -> None:
    heads, _ = _sample()
    assert request_.needs_map is needs_map
    assert FusedEngine().supports(heads, request_) is not needs_map
    assert PlainEngine().supports(heads, request_)


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_what_was_not_asked_for_is_not_there(engine: str) -> None:
    heads, state = _sample()
    _, stats = attend(heads, Request((Need.keys(),)), state, pick_engine(engine))
    assert torch.equal(stats[Need.keys()], heads.k)
    with pytest.raises(PartError, match=r"diagonal.* was not computed for this block"):
        stats[Need.diagonal()]


@pytest.mark.parametrize("need", [Need.row("cls"), Need.logits_row("cls")])
def test_the_cls_row_of_a_model_without_cls_is_refused(need: Need) -> None:
    heads, state = _sample()
    with pytest.raises(ConfigError, match="CLS row of a model without a CLS token"):
        attend(heads, Request((need,)), replace(state, cls_index=None))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one of auto, plain, .*triton, got 'flash'"):
        pick_engine("flash")


def test_engines_are_tried_in_order() -> None:
    for name in ("auto", "plain", "tiled", "two_calls", "triton"):
        assert isinstance(pick_engine(name)[-1], PlainEngine)
    assert [type(engine) for engine in pick_engine("plain")] == [PlainEngine]


def test_dropout_is_applied_to_the_map_and_not_to_the_statistics() -> None:
    heads, state = _sample()
    torch.manual_seed(0)
    out, stats = PlainEngine()(replace(heads, dropout=0.9), Request((Need.map(),)), state)
    whole, same = PlainEngine()(heads, Request((Need.map(),)), state)
    assert torch.equal(stats[Need.map()], same[Need.map()])
    assert not torch.allclose(out, whole)
