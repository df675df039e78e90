"""DynamicViT's predictor: what golden figures do not hold of its choice and its drawing."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tokenred.attention import AttentionStats
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
