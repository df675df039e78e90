"""ω of frequency-aware reduction: given, and learned."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import tokenred as tr
from tests.strategies.recipes.checks import images, model, wrapped
from tokenred.core.errors import ConfigError, UntrainedPartWarning

LEARNED = tr.strategy("frequency", learned=True, omega1=0.2, omega2=-0.5)
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


def test_learned_ones_start_at_the_given_ones() -> None:
    given, learned = LEARNED.replace(score_mods=()), tr.wrap(model(), LEARNED)
    plain = tr.strategy("frequency", omega1=0.2, omega2=-0.5)
    expected = tr.wrap(model(), plain)(images())
    torch.testing.assert_close(learned(images()), expected, rtol=0, atol=1e-6)
    assert not torch.equal(tr.wrap(model(), given)(images()), expected)
    assert not hasattr(tr.wrap(model(), plain), "parts")
    names = [name for name in learned.state_dict() if name.startswith("parts.")]
    # The first of four blocks that reduces is block 1.
    assert names == [f"parts.score_mod_0.omega{i}.{block}" for i in (1, 2) for block in (0, 1)]
    assert {learned.state_dict()[name].shape for name in names} == {(4,)}


def test_every_head_of_every_block_learns_its_own() -> None:
    reduced, batch = wrapped(LEARNED), images()
    weights = list(reduced.parts.parameters())
    assert len(weights) == 4

    def loss() -> torch.Tensor:
        return reduced.train()(batch).square().sum()

    found = torch.autograd.grad(loss(), weights)
    for weight, slope in zip(weights, found, strict=True):
        for head in range(4):
            ends = []
            for step in (1e-5, -2e-5):
                with torch.no_grad():
                    weight[head] += step
                ends.append(loss().item())
            with torch.no_grad():
                weight[head] += 1e-5
            assert slope[head].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_saved_loaded_shared_swapped(tmp_path: Path) -> None:
    reduced, batch = wrapped(LEARNED), images()
    expected = reduced(batch)
    loaded = tr.load(tr.save(reduced, tmp_path / "a.safetensors"), model=model())
    assert torch.equal(loaded(batch), expected)
    more = reduced.with_strategy(LEARNED.replace(proportional_attention=True))
    assert more.parts["score_mod_0"] is reduced.parts["score_mod_0"]
    other = copy.deepcopy(reduced.parts["score_mod_0"])
    nn.init.zeros_(other.omega1[0])
    reduced.parts["score_mod_0"] = other
    assert not torch.equal(reduced(batch), expected)


def test_refused_and_warned_of() -> None:
    with pytest.raises(ConfigError, match="3 values in omega1 for 4 heads"):
        tr.wrap(model(), tr.strategy("frequency", omega1=(0.1, 0.2, 0.3)))
    with pytest.warns(UntrainedPartWarning, match="score_mod_0"):
        tr.wrap(model(), LEARNED)
