"""Engines agree with each other, with NumPy, and about dead tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.attention.cases import Case
from tokenred.attention import (
    QKV,
    AttentionSpec,
    AttentionStat,
    Engine,
    FusedEngine,
    PlainEngine,
    Recomputed,
    ScoreMod,
    TiledEngine,
    TwoCallsEngine,
    attend,
    size_bias,
)
from tokenred.core.state import TokenState
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
DOUBLE = (torch.float64,)
MAP = AttentionStat.map()
FREE = (AttentionStat.keys(), AttentionStat.values())
SIZED = draw.samples(dtypes=DOUBLE, sizes=("none", "counts", "fractions", "dead"))


def softmax_map(qkv: QKV, bias: torch.Tensor | None) -> np.ndarray:
    logits = np.einsum("bhid,bhjd->bhij", qkv.q.numpy(), qkv.k.numpy()) * qkv.scale
    if qkv.bias is not None:
        logits = logits + qkv.bias.numpy()
    if bias is not None:
        logits = logits + bias.numpy()[:, None, None, :]
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def bias_of(state: TokenState) -> torch.Tensor | None:
    return None if state.size is None else size_bias(state.size)


@QUICK
@given(SIZED)
def test_the_plain_engine_is_attention_and_the_fused_one_is_the_plain_one(sample: Sample) -> None:
    qkv, state, bias = sample.qkv, sample.state, bias_of(sample.state)
    out, stats = PlainEngine()(qkv, AttentionSpec((MAP, *FREE), key_bias=bias), state)
    attention = softmax_map(qkv, bias)
    np.testing.assert_allclose(out.numpy(), attention @ qkv.v.numpy(), atol=1e-9)
    np.testing.assert_allclose(stats[MAP].numpy(), attention.mean(axis=1), atol=1e-10)
    assert set(stats.values) == {MAP, *FREE}
    rows = () if state.cls_index is None else (AttentionStat.logits_row("cls", "max"),)
    spec = AttentionSpec((*FREE, *rows), key_bias=bias)
    assert FusedEngine().supports(qkv, spec)
    fused, found = FusedEngine()(qkv, spec, state)
    torch.testing.assert_close(fused, out, atol=1e-9, rtol=1e-9)
    expected = PlainEngine()(qkv, spec, state)[1]
    assert found.values.keys() == expected.values.keys()
    assert all(torch.equal(found[stat], expected[stat]) for stat in spec.requires)


@QUICK
@given(draw.samples(sizes=("dead",), dtypes=draw.DTYPES[:2]))
def test_dead_tokens_get_no_attention_and_change_nothing(sample: Sample) -> None:
    state, qkv = sample.state, sample.qkv
    dead = state.size == 0
    spec = AttentionSpec((MAP,), key_bias=size_bias(state.size))
    hidden = dead[:, None, :, None]
    changed = replace(qkv, k=torch.where(hidden, 7.0, qkv.k), v=torch.where(hidden, 99.0, qkv.v))
    out, stats = PlainEngine()(qkv, spec, state)
    assert not stats[MAP].sum(dim=1)[dead].any()
    assert bool(out.isfinite().all())
    torch.testing.assert_close(PlainEngine()(changed, spec, state)[0], out)
    torch.testing.assert_close(FusedEngine()(changed, replace(spec, requires=()), state)[0], out)


@QUICK
@given(draw.samples(dtypes=DOUBLE, flavours=("normal",), sizes=("none",)))
def test_theta_reaches_the_output_and_the_statistics(sample: Sample) -> None:
    qkv, state = sample.qkv, sample.state
    spec = AttentionSpec((AttentionStat.column_sum("mean", exclude_self=False),), theta=0.5)
    out, stats = PlainEngine()(qkv, spec, state)
    attention = softmax_map(qkv, None)
    b, h, total, _ = attention.shape
    kept = -(-total * total // 2)
    threshold = np.sort(attention.reshape(b, h, -1), axis=-1)[..., -kept]
    sparse = np.where(attention >= threshold[..., None, None] * (1 - 1e-12), attention, 0)
    np.testing.assert_allclose(out.numpy(), sparse @ qkv.v.numpy(), atol=1e-9)
    columns = sparse.sum(axis=-2)[..., state.num_prefix :].mean(axis=1)
    np.testing.assert_allclose(stats[spec.requires[0]].numpy(), columns, atol=1e-9)


def test_a_bias_on_pairs_of_tokens() -> None:
    case = Case(11, d=8, b=3, h=4, p=2, dtype="float64", pairs=1)
    qkv, _, state = case.make()
    qkv = replace(qkv, bias=qkv.bias.double())
    spec = AttentionSpec((MAP, AttentionStat.logits_row("cls")))
    out, stats = PlainEngine()(qkv, spec, state)
    attention = softmax_map(qkv, None)
    np.testing.assert_allclose(out.numpy(), attention @ qkv.v.numpy())
    np.testing.assert_allclose(stats[MAP].numpy(), attention.mean(axis=1))
    # As defined, before every bias.
    without = PlainEngine()(replace(qkv, bias=None), spec, state)[1]
    assert torch.equal(stats[spec.requires[1]], without[spec.requires[1]])


@pytest.mark.parametrize("pairs", [1, 3])
def test_some_tokens_taken_out(pairs: int) -> None:
    qkv, _, _ = Case(11, b=3, h=4, pairs=pairs).make()
    places = torch.tensor([[0, 1, 5, 3], [0, 1, 10, 2], [0, 1, 4, 9]])
    taken = qkv.take(places)
    for b in range(3):
        own = qkv.bias[b if pairs > 1 else 0]
        torch.testing.assert_close(taken.bias[b], own[:, places[b]][:, :, places[b]])
        torch.testing.assert_close(taken.k[b], qkv.k[b][:, places[b]])


class Masked(ScoreMod):
    """Takes key 0 out."""

    def __call__(self, logits: torch.Tensor, state: TokenState) -> torch.Tensor:
        first = torch.arange(logits.shape[-1]) == 0
        return logits.masked_fill(first, -torch.inf)


def test_a_score_mod_changes_the_logits_before_the_softmax() -> None:
    qkv, _, state = Case(6, b=2).make()
    _, stats = attend(qkv, AttentionSpec((MAP,), score_mods=(Masked(),)), state)
    assert not stats[MAP][:, :, 0].any()
    torch.testing.assert_close(stats[MAP].sum(dim=-1), torch.ones(2, 6))


@pytest.mark.parametrize(
    ("spec", "needs_map"),
    [
        (AttentionSpec(), False),
        (AttentionSpec((*FREE, AttentionStat.logits_row())), False),
        (AttentionSpec(key_bias=torch.zeros(1, 1)), False),
        (AttentionSpec((AttentionStat.diagonal(),)), True),
        (AttentionSpec((AttentionStat.row(),)), True),
        (AttentionSpec(theta=0.9), True),
        (AttentionSpec(score_mods=(Masked(),)), True),
    ],
)
def test_the_map_is_held_only_where_it_is_looked_at(spec: AttentionSpec, needs_map: bool) -> None:
    qkv, _, _ = Case(6).make()
    assert spec.needs_map is needs_map
    assert FusedEngine().supports(qkv, spec) is not needs_map


@pytest.mark.parametrize("engine", [TiledEngine(), TwoCallsEngine()], ids=repr)
def test_engines_without_a_map_leave_to_others_what_they_cannot_do(engine: Engine) -> None:
    case = Case(9, biased=True)
    qkv, bias, _ = case.make()
    spec = AttentionSpec(case.stats, key_bias=bias)
    assert engine.supports(qkv, spec)
    assert not engine.supports(qkv, AttentionSpec((MAP,)))
    assert not engine.supports(qkv, replace(spec, score_mods=(Masked(),)))
    assert not engine.supports(replace(qkv, dropout=0.1), spec)
    assert not engine.supports(replace(qkv, q=qkv.q.to("meta")), spec)
    half, paired = (Case(9, **more).make()[0] for more in ({"dtype": "float16"}, {"pairs": 1}))
    assert engine.supports(half, spec) == (not engine.supports(paired, spec))
    for name in ("k", "v"):
        trained = replace(qkv, **{name: getattr(qkv, name).clone().requires_grad_()})
        assert not engine.supports(trained, spec)
        trains = Recomputed(engine)
        assert trains.supports(trained, spec)
        assert trains.supports(trained, replace(spec, theta=0.5, threshold="fast"))
        assert not trains.supports(trained, AttentionSpec((MAP,)))
        assert not trains.supports(replace(trained, dropout=0.1), spec)
        with torch.no_grad():
            assert engine.supports(trained, spec)
    learned = replace(paired, bias=paired.bias.clone().requires_grad_())
    assert not engine.supports(learned, spec)
    assert not trains.supports(learned, spec)
    assert not engine.supports(qkv, replace(spec, key_bias=bias.clone().requires_grad_()))


def test_dropout_is_applied_to_the_map_and_not_to_the_statistics() -> None:
    qkv, _, state = Case(6).make()
    torch.manual_seed(0)
    spec = AttentionSpec((MAP,))
    out, stats = PlainEngine()(replace(qkv, dropout=0.9), spec, state)
    whole, same = PlainEngine()(qkv, spec, state)
    assert torch.equal(stats[MAP], same[MAP])
    assert not torch.allclose(out, whole)
