"""A bias on pairs of tokens: every engine that takes it agrees with the plain one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenred.attention import QKV, AttentionSpec, AttentionStat, FusedEngine, PlainEngine
from tokenred.attention.recompute import Recomputed
from tokenred.attention.tiled.engine import TiledEngine
from tokenred.attention.triton import TritonEngine
from tokenred.attention.two_calls import TwoCallsEngine
from tokenred.core.state import TokenState

B, H, N, D, P = 3, 4, 11, 8, 2
NEEDS = (
    AttentionStat.diagonal("max"),
    AttentionStat.column_sum("mean"),
    AttentionStat.column_sum("max", exclude_self=False),
    AttentionStat.row("cls", "mean"),
    AttentionStat.logits_row("cls"),
)


def _given(images: int = 1, n: int = N) -> tuple[QKV, TokenState, Tensor]:
    draw = torch.Generator().manual_seed(4)
    q, k, v = torch.randn(3, B, H, n, D, generator=draw, dtype=torch.float64)
    bias = torch.randn(images, H, n, n, generator=draw, dtype=torch.float64) * 2
    key_bias = torch.rand(B, n, generator=draw, dtype=torch.float64).log()
    index = torch.arange(n - P).expand(B, n - P)
    state = TokenState(torch.zeros(B, n, 1), index, P, (1, n - P), cls_index=0)
    return QKV(q, k, v, 0.4, bias=bias), state, key_bias


def test_definition() -> None:
    heads, state, _ = _given()
    out, stats = PlainEngine()(heads, AttentionSpec(NEEDS), state)
    assert heads.bias is not None
    attention = torch.einsum("bhid,bhjd->bhij", heads.q, heads.k) * 0.4 + heads.bias
    attention = attention.softmax(dim=-1)
    torch.testing.assert_close(out, attention @ heads.v)
    row = attention[:, :, 0, P:].mean(dim=1)
    torch.testing.assert_close(stats[AttentionStat.row("cls", "mean")], row)
    # As defined, before every bias.
    without = PlainEngine()(replace(heads, bias=None), AttentionSpec(NEEDS), state)[1]
    assert torch.equal(
        stats[AttentionStat.logits_row("cls")], without[AttentionStat.logits_row("cls")]
    )


@pytest.mark.parametrize("images", [1, B])
@pytest.mark.parametrize("with_keys", [False, True])
def test_fused(images: int, with_keys: bool) -> None:
    heads, state, key_bias = _given(images)
    request = AttentionSpec(key_bias=key_bias if with_keys else None)
    assert FusedEngine().supports(heads, request)
    got, expected = (engine(heads, request, state)[0] for engine in (FusedEngine(), PlainEngine()))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("images", [1, B])
@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize("tile", [1 << 18, 2 * N * N, 40])
def test_tiled(
    images: int, with_keys: bool, theta: float, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The smallest tiles are single maps, and rows of one.
    monkeypatch.setattr("tokenred.attention.tiled.engine._TILE", tile)
    monkeypatch.setattr("tokenred.attention.tiled.engine._ONE_MAP", tile)
    heads, state, key_bias = _given(images)
    request = AttentionSpec(NEEDS, key_bias if with_keys else None, theta)
    assert TiledEngine().supports(heads, request)
    (got, stats), (expected, truth) = (
        engine(heads, request, state) for engine in (TiledEngine(), PlainEngine())
    )
    torch.testing.assert_close(got, expected)
    for need in NEEDS:
        torch.testing.assert_close(stats[need], truth[need])


def test_others_refuse() -> None:
    heads, _, _ = _given()
    for engine in (TwoCallsEngine(), TritonEngine()):
        assert not engine.supports(heads, AttentionSpec(NEEDS))
    assert heads.bias is not None
    learned = replace(heads, bias=heads.bias.clone().requires_grad_())
    assert not TiledEngine().supports(learned, AttentionSpec(NEEDS))
    assert not Recomputed(TiledEngine()).supports(learned, AttentionSpec(NEEDS))
    with torch.no_grad():
        assert TiledEngine().supports(learned, AttentionSpec(NEEDS))


@pytest.mark.parametrize("images", [1, B])
def test_taken(images: int) -> None:
    heads, _, _ = _given(images)
    places = torch.tensor([[0, 1, 5, 3], [0, 1, 10, 2], [0, 1, 4, 9]])
    taken = heads.take(places)
    assert taken is not None
    assert taken.bias is not None
    assert heads.bias is not None
    for b in range(B):
        own = heads.bias[b if images > 1 else 0]
        torch.testing.assert_close(taken.bias[b], own[:, places[b]][:, :, places[b]])
        torch.testing.assert_close(taken.k[b], heads.k[b][:, places[b]])
