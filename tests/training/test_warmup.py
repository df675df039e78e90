from __future__ import annotations

import pytest

import tokenred as tr
from tokenred.models import load_model
from tokenred.training.warmup import reduction_share, warmed


def test_share_over_epochs() -> None:
    assert reduction_share(0, None) == 1
    shares = [reduction_share(epoch, (10, 100)) for epoch in range(120)]
    assert shares[:11] == [0] * 11
    assert shares[60] == pytest.approx(0.5)
    assert shares == sorted(shares)
    assert shares[110:] == [1] * 10
    assert reduction_share(0, (0, 0)) == 1


@pytest.mark.parametrize("name", ["gtp", "evit", "topk", "tome", "idlevit"])
def test_from_nothing_to_the_strategy(name: str) -> None:
    whole = tr.wrap(load_model("digits"), tr.strategy(name))
    costs = [whole.with_strategy(warmed(whole, share)).cost().gmacs for share in (0, 0.3, 0.6, 0.9)]
    assert costs[0] == pytest.approx(tr.gmacs(whole.base), rel=1e-2)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] >= whole.cost().gmacs
    assert warmed(whole, 1) is whole.strategy


def test_an_exact_count() -> None:
    whole = tr.wrap(load_model("digits"), tr.strategy("gtp", P=6))
    half = whole.with_strategy(warmed(whole, 0.5))
    assert [layer.removed for layer in half.cost().layers] == [3] * 8
    rates = tr.wrap(load_model("digits"), tr.strategy("evit", keep_rate=0.5))
    assert warmed(rates, 0.5).schedule == tr.KeepRatio(0.75)
    masked = tr.wrap(load_model("digits"), tr.strategy("tri-level", attention_rate=0.3))
    assert warmed(masked, 0.5).score_mods[0].ratio == pytest.approx(0.65)
