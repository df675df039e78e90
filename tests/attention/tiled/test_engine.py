from __future__ import annotations

import pytest
import torch

import tokenred.attention.tiled.engine as tiles
from tokenred.attention import QKV, SLACK, AttentionSpec, AttentionStat, PlainEngine, TiledEngine
from tokenred.core.state import TokenState

NEEDS = (
    AttentionStat.diagonal("max"),
    AttentionStat.diagonal("mean"),
    AttentionStat.column_sum("max"),
    AttentionStat.column_sum("mean", exclude_self=False),
    AttentionStat.row("cls", "max"),
    AttentionStat.row(1, "mean"),
    AttentionStat.keys(),
    AttentionStat.logits_row("cls"),
    AttentionStat.kept(),
)


def _case(b: int, h: int, n: int, d: int = 8, p: int = 2) -> tuple[QKV, TokenState]:
    generator = torch.Generator().manual_seed(b * 1000 + n)
    # As in a block: three views into one projection, none of them contiguous.
    qkv = torch.randn(b, n, 3, h, d, generator=generator).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    x = torch.zeros(b, n, h * d)
    index = torch.arange(n - p).expand(b, -1)
    return QKV(q * 2, k, v, scale=d**-0.5), TokenState(x, index, p, (1, n - p), cls_index=0)


@pytest.mark.parametrize("tile", [1, 40, 300, 5000, 1 << 20])
@pytest.mark.parametrize(("b", "h", "n"), [(1, 1, 3), (3, 4, 7), (5, 6, 17), (2, 3, 65)])
@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize("biased", [False, True])
def test_agrees_with_the_plain_engine(
    b: int, h: int, n: int, theta: float, biased: bool, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_TILE", tile)
    monkeypatch.setattr(tiles, "_ONE_MAP", tile)
    heads, state = _case(b, h, n)
    bias = None
    if biased:
        bias = torch.rand(b, n).log()
        bias[:, -1] = -torch.inf  # a dead token
    request = AttentionSpec(NEEDS, key_bias=bias, theta=theta)
    assert TiledEngine().supports(heads, request)
    out, found = TiledEngine()(heads, request, state)
    expected, stats = PlainEngine()(heads, request, state)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=2e-6)
    for need in NEEDS:
        torch.testing.assert_close(found[need], stats[need], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tile", [1, 5000, 1 << 20])
def test_fast_keeps_about_theta_and_says_how_much(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_TILE", tile)
    monkeypatch.setattr(tiles, "_ONE_MAP", tile)
    heads, state = _case(3, 4, 120)
    requires = (AttentionStat.kept(), AttentionStat.column_sum("mean", exclude_self=False))
    request = AttentionSpec(requires, theta=0.6, threshold="fast")
    _, found = TiledEngine()(heads, request, state)
    error = found[AttentionStat.kept()] - 0.6
    assert error.shape == (3, 4)
    assert 1e-4 < error.abs().max() <= SLACK
    exact = PlainEngine()(heads, request, state)[1]
    torch.testing.assert_close(found[requires[1]], exact[requires[1]], rtol=0.05, atol=0.05)


def test_leaves_to_the_plain_engine_what_it_cannot_do() -> None:
    heads, _ = _case(2, 2, 9)
    engine = TiledEngine()
    assert not engine.supports(heads, AttentionSpec((AttentionStat.map(),)))
    assert not engine.supports(
        QKV(heads.q, heads.k, heads.v, 1.0, dropout=0.1), AttentionSpec(NEEDS)
    )
    trained = QKV(heads.q.clone().requires_grad_(), heads.k, heads.v, 1.0)
    assert not engine.supports(trained, AttentionSpec(NEEDS))
    with torch.no_grad():
        assert engine.supports(trained, AttentionSpec(NEEDS))
    half = QKV(heads.q.half(), heads.k.half(), heads.v.half(), 1.0)
    assert not engine.supports(half, AttentionSpec(NEEDS))


def test_the_output_is_laid_out_for_the_projection() -> None:
    heads, state = _case(2, 3, 11)
    out, _ = TiledEngine()(heads, AttentionSpec(NEEDS), state)
    assert out.transpose(1, 2).is_contiguous()
