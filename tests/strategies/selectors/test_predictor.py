"""DynamicViT's predictor: its networks by hand, its choice, and its drawing in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError
from tokenred.core.state import TokenState
from tokenred.strategies.selectors import Predictor
from tokenred.testing.sample import model_info

NOTHING = AttentionStats()


def made(width: int = 12, scale: float = 0.5, **options: Any) -> Any:
    torch.manual_seed(0)
    built = Predictor(**options).built_for(model_info(width, (3, 4), num_prefix=2))
    assert built.network is not None
    for weight in built.network.double().parameters():
        nn.init.normal_(weight, std=scale)
    return built


def tokens(b: int = 3, width: int = 12, layer: int = 3, p: int = 2, n: int = 12) -> TokenState:
    x = torch.randn(b, p + n, width, generator=torch.Generator().manual_seed(layer)).double()
    return TokenState(x, torch.arange(n).expand(b, n), p, (3, 4), cls_index=0, layer=layer)


def by_hand(stage: nn.Module, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Log-probabilities of an image's tokens, ``(n, 2)``."""

    def gelu(values: np.ndarray) -> np.ndarray:
        return values * 0.5 * (1 + erf(values / np.sqrt(2)))

    def linear(values: np.ndarray, layer: nn.Linear) -> np.ndarray:
        return values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    norm, first = stage.embed[0], stage.embed[1]
    centred = x - x.mean(axis=1, keepdims=True)
    x = centred / np.sqrt(centred.var(axis=1, keepdims=True) + norm.eps)
    x = x * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    x = gelu(linear(x, first))
    half = x.shape[1] // 2
    common = (x[:, half:] * weight[:, None]).sum(axis=0) / weight.sum()
    x = np.concatenate((x[:, :half], np.broadcast_to(common, (len(x), len(common)))), axis=1)
    x = gelu(linear(x, stage.decide[0]))
    x = linear(gelu(linear(x, stage.decide[2])), stage.decide[4])
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("layer", "stage"), [(0, 0), (3, 0), (5, 0), (6, 1), (9, 2), (11, 2)])
def test_the_most_probable_tokens_stay(layer: int, stage: int) -> None:
    module, state = made(), tokens(layer=layer)
    chosen = module(state, NOTHING, 5)
    for image, keep in zip(state.image.numpy(), chosen.keep.tolist(), strict=True):
        keep_odds = by_hand(module.network.stages[stage], image, np.ones(12))[:, 0]
        assert keep == sorted(np.argsort(-keep_odds)[:7].tolist())
    expected = torch.logit(torch.tensor(keep_odds).exp())
    torch.testing.assert_close(chosen.score[-1], expected)


def test_the_common_features_are_of_those_that_are_left() -> None:
    module, state = made(), tokens(b=1)
    alive = torch.tensor([[1.0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1]]).double()
    logits = module.network.stages[0](state.image, alive).log_softmax(dim=-1)
    expected = by_hand(module.network.stages[0], state.image[0].numpy(), alive[0].numpy())
    np.testing.assert_allclose(logits[0].detach().numpy(), expected, atol=1e-12)
    # As if the others had gone, and finite where all have.
    left = module.network.stages[0](state.image[:, alive[0] > 0])
    torch.testing.assert_close(left, module.network.stages[0](state.image, alive)[:, alive[0] > 0])
    assert module.network.stages[0](state.image, alive * 0).isfinite().all()


def test_a_token_that_is_sure_to_stay_is_no_tie() -> None:
    module, state = made(), tokens()
    module.network.stages[0].decide[-1].weight.data *= 1e4
    score = module(state, NOTHING, 3).score
    odds = module.network.stages[0](state.image).log_softmax(dim=-1)[..., 0]
    assert (odds == 0).sum(dim=1).min() > 1  # a probability of 1 to the last bit
    assert all(len(set(row)) == 12 for row in score.tolist())


# ---------------------------------------------------------------- training


def test_a_drawing_is_a_hard_mask_that_only_shrinks() -> None:
    module, state = made(), tokens()
    torch.manual_seed(1)
    state = module.mask(state, NOTHING, 3)
    first = state.memory["mask"].detach()
    assert first.shape == (3, 14)
    assert (first[:, :2] == 1).all()
    state = module.mask(TokenState(**vars(state) | {"layer": 6}), NOTHING, 4)
    second, kept = state.memory["mask"], state.memory["kept_share"]
    assert set(second.flatten().tolist()) == {0.0, 1.0}
    assert (second <= first).all()
    assert second.sum() < first.sum()
    torch.testing.assert_close(kept[:, 0], first[:, 2:].mean(dim=1))
    torch.testing.assert_close(kept[:, 1], second[:, 2:].mean(dim=1))
    assert state.x.shape[1] == 14


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_tokens_are_kept_as_often_as_the_network_says(temperature: float) -> None:
    module, state = made(temperature=temperature), tokens(b=1)
    many = TokenState(
        state.x.expand(4000, -1, -1), state.index.expand(4000, -1), 2, (3, 4), layer=3
    )
    torch.manual_seed(2)
    with torch.no_grad():
        mask = module.mask(many, NOTHING, 3).memory["mask"]
        odds = module.network.stages[0](state.image).softmax(dim=-1)[0, :, 0]
    assert 0.05 < odds.min() < odds.max() < 0.95
    # Five standard deviations of the mean of 4000.
    torch.testing.assert_close(mask[:, 2:].mean(dim=0), odds, rtol=0, atol=5 * 0.5 / 4000**0.5)


def test_the_gradient_is_that_of_the_soft_decision() -> None:
    module, state = made(temperature=0.7), tokens()
    torch.manual_seed(3)
    weigh = torch.randn(3, 12).double()
    (module.mask(state, NOTHING, 3).memory["mask"][:, 2:] * weigh).sum().backward()
    got = [p.grad.clone() for p in module.network.stages[0].parameters()]
    module.network.zero_grad()
    torch.manual_seed(3)
    torch.randn(3, 12)
    odds = module.network.stages[0](state.image).log_softmax(dim=-1)
    noise = -torch.empty_like(odds).exponential_().log()
    (((odds + noise) / 0.7).softmax(dim=-1)[..., 0] * weigh).sum().backward()
    for one, p in zip(got, module.network.stages[0].parameters(), strict=True):
        torch.testing.assert_close(one, p.grad)
    assert all(p.grad is None for p in module.network.stages[1].parameters())


def test_a_limit_on_the_gradient_bounds_what_comes_from_the_mask_alone() -> None:
    weigh = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for limit, given in ((None, weigh.clamp(-0.1, 0.1)), (0.3, weigh)):
        module = made(gradient_limit=limit)
        torch.manual_seed(3)
        memory = module.mask(tokens(), NOTHING, 3).memory
        ((memory["mask"][:, 2:] * given).sum() + 50 * memory["kept_share"].sum()).backward()
        found.append((memory["mask"], [p.grad for p in module.network.stages[0].parameters()]))
    (mask, free), (same, limited) = found
    assert torch.equal(mask, same)
    for one, other in zip(free, limited, strict=True):
        torch.testing.assert_close(one, other)
    assert weigh.abs().max() > 0.1


def test_half_precision_draws_in_single() -> None:
    module, state = made(), tokens()
    module.network.bfloat16()
    low = TokenState(**vars(state) | {"x": state.x.bfloat16()})
    assert module.mask(low, NOTHING, 3).memory["mask"].dtype == torch.float32
    assert module(low, NOTHING, 3).score.dtype == torch.float32


# ---------------------------------------------------------------- about it


def test_the_cost_is_that_of_the_networks() -> None:
    info = model_info(24, (7, 7))
    counts = (0, 0, 0, 10, 0, 4, 0, 0, 0, 5, 0, 0)
    each = 24 * 24 + 24 * 12 + 12 * 6 + 6 * 2
    assert Predictor().learned_macs(info, counts) == (49 + 39 + 35) * each
    assert Predictor().macs(info, 49, 10) == 0
    module, counter = Predictor().built_for(info), FlopCounterMode(display=False)
    with counter:
        module.network.stages[0](torch.zeros(1, 49, 24))
    assert counter.get_total_flops() == 2 * 49 * each


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"got blocks \[12\], but .* has 0 to 11"):
        Predictor(layers=(3, 12)).check(model_info(8, (2, 2)))
