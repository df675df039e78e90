"""Tiles of any size answer as the map does, and their buffers are made once."""

import pytest
import timm
import torch

import tokenred as tr
import tokenred.attention.tiled.engine as tiles
from tests.attention.cases import Case, agrees
from tokenred.attention import (
    SLACK,
    AttentionSpec,
    AttentionStat,
    FusedEngine,
    PlainEngine,
    TiledEngine,
)
from tokenred.attention.spec import Scratch

ENGINE = TiledEngine()


@pytest.fixture(params=[1, 40, 300, 5000, 1 << 20])
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest tiles are single maps, and rows of one."""
    monkeypatch.setattr(tiles, "_TILE", request.param)
    monkeypatch.setattr(tiles, "_ONE_MAP", request.param)


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        Case(3),
        Case(7, b=3, h=4, p=2),
        Case(17, b=5, h=6, p=2),
        Case(65, b=2, h=3),
        Case(11, d=8, b=3, h=4, p=2, dtype="float64", pairs=1),
        Case(11, d=8, b=3, h=4, p=2, dtype="float64", pairs=3),
    ],
    ids=str,
)
def test_agrees_with_the_plain_engine(case: Case, theta: float, biased: bool) -> None:
    agrees(ENGINE, case._replace(biased=biased), theta)


@pytest.mark.parametrize("pairs", [1, 3])
def test_the_fused_engine_takes_a_bias_on_pairs(pairs: int) -> None:
    qkv, bias, state = Case(11, b=3, dtype="float64", pairs=pairs, biased=True).make()
    for keys in (None, bias):
        spec = AttentionSpec(key_bias=keys)
        got, expected = (one(qkv, spec, state)[0] for one in (FusedEngine(), PlainEngine()))
        torch.testing.assert_close(got, expected)


@pytest.mark.usefixtures("_tile")
def test_fast_keeps_about_theta_and_says_how_much() -> None:
    qkv, _, state = Case(120, b=3, h=4).make()
    requires = (AttentionStat.kept(), AttentionStat.column_sum("mean", exclude_self=False))
    spec = AttentionSpec(requires, theta=0.6, threshold="fast")
    _, found = ENGINE(qkv, spec, state)
    error = found[requires[0]] - 0.6
    assert error.shape == (3, 4)
    assert 1e-4 < error.abs().max() <= SLACK
    exact = PlainEngine()(qkv, spec, state)[1]
    torch.testing.assert_close(found[requires[1]], exact[requires[1]], rtol=0.05, atol=0.05)


def test_the_output_is_laid_out_for_the_projection() -> None:
    qkv, _, state = Case(11, b=2, h=3).make()
    out, _ = ENGINE(qkv, AttentionSpec(Case(11).stats), state)
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_a_forward_makes_its_buffers_once_and_holds_none(
    theta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {}
    made: list[Scratch] = []
    take, init = Scratch.take, Scratch.__init__

    def watched(self: Scratch, name: str, shape: tuple[int, ...], like: torch.Tensor) -> object:
        found = take(self, name, shape, like)
        seen.setdefault(name, set()).add(found.data_ptr())
        return found

    def noted(self: Scratch) -> None:
        init(self)
        made.append(self)

    monkeypatch.setattr(Scratch, "take", watched)
    monkeypatch.setattr(Scratch, "__init__", noted)
    model = timm.create_model("deit_tiny_patch16_224", img_size=64, depth=2).eval()
    reduced, images = (
        tr.wrap(model, tr.strategy("gtp", P=1, theta=theta)),
        torch.randn(2, 3, 64, 64),
    )
    with torch.no_grad():
        first = reduced(images)
        assert "map" in seen
        assert {name: len(places) for name, places in seen.items()} == dict.fromkeys(seen, 1)
        assert torch.equal(first, reduced(images))
    assert len(made) == 2
    # With gradients a buffer may not be written over.
    reduced(images)
    assert len(made) == 2
