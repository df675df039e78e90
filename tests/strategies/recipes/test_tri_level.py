"""Tri-Level as a whole: by hand, counts and costs, every form."""

import pytest
import timm
import torch

import tokenred as tr
from tests.strategies.recipes.checks import images, wrapped
from tokenred.core.errors import ConfigError
from tokenred.models.rebuild import weightless
from tokenred.strategies.score_mods import TopKeys


def test_counts_and_costs() -> None:
    with weightless():
        model = timm.create_model("deit_small_patch16_224").eval()
    reduced = tr.wrap(model, "tri-level")
    assert [x.tokens_out for x in reduced.cost().layers[3::3]] == [138, 97, 68]
    assert tr.gmacs(reduced) == tr.gmacs(tr.wrap(model, "topk")) == pytest.approx(3.0, abs=0.16)


def test_composition() -> None:
    made = tr.strategy("tri-level", keep_rate=(0.5, 0.5), layers=(1, 2), attention_rate=0.5)
    assert made.score_mods == (TopKeys(0.5, (1, 2)),)
    assert made.replace(score_mods=()) == tr.strategy("topk", keep_rate=(0.5, 0.5), layers=(1, 2))
    released = tr.strategy("tri-level", reference=True)
    assert released.score_mods == (TopKeys(0.3, None, 1e-6, True),)
    assert tr.strategy("Tri-Level", reference=True, epsilon=0.0).score_mods[0].epsilon == 0
    whole = wrapped(tr.strategy("tri-level", keep_rate=1.0, attention_rate=1.0))
    assert torch.equal(whole(images()), whole.base(images()))
    with pytest.raises(ConfigError, match="attention_rate must be"):
        tr.strategy("tri-level", attention_rate=0)
