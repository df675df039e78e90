"""``uniform``: evenly, before the first block, the same for every image."""

import pytest
import torch
from torch import nn

import tokenred as tr


@pytest.fixture(scope="module")
def digits() -> nn.Module:
    return tr.models.load_model("digits")


def test_a_quarter_of_the_patches_is_all_that_runs(digits: nn.Module) -> None:
    fast = tr.wrap(digits, tr.strategy("uniform", keep_rate=0.25))
    logits, trace = fast.run_with_trace(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert list(trace.tokens_per_layer) == [16] * 8
    alive = (trace.owners() >= 0).reshape(2, 8, 8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[::2, ::2] = True
    assert torch.equal(alive, expected.expand(2, 8, 8))
    # What is left out never enters a block: the cost is that of a model of 16 patches.
    blocks = [layer.macs for layer in fast.cost().layers]
    assert len(set(blocks)) == 1


def test_in_steps(digits: nn.Module) -> None:
    fast = tr.wrap(digits, tr.strategy("uniform", keep_rate=0.5, layers=(0, 3)))
    assert [layer.tokens_out for layer in fast.cost().layers] == [32] * 3 + [16] * 5
    assert tr.strategy("uniform") == tr.strategy("uniform", reference=True)
