"""Batches whose images keep different numbers of tokens, packed."""

import pytest
import torch

import tokenred as tr
from tests.strategies.recipes.checks import images, wrapped
from tokenred.core.capture import replace
from tokenred.reduced.packed import Packing, packing_of

ADAPTIVE = {
    "adamerge": {"r_max": 6, "mean": [0.2] * 4, "std": [0.02] * 4},
    "algm": {},
    "ats": {},
    "dtome": {"thresholds": 0.95},
}


def made(name: str, form: str = "cls") -> tr.ReducedViT:
    return wrapped(tr.strategy(name, **ADAPTIVE[name]), form)


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "distilled") for name in ADAPTIVE), ("dtome", "no cls")]
)
def test_packed_is_padded(name: str, form: str) -> None:
    fast, batch = made(name, form), images(form, b=6)
    packed, trace = fast.run_with_trace(batch)
    assert any(packing_of(fast.backbone.blocks[-1], state) for state in trace.states)
    # Hooks see padded batches.
    for block in fast.base.blocks:
        block.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(packed, fast(batch), rtol=0, atol=1e-12)


def test_gradients_are_those_of_each_image() -> None:
    fast, batch = made("dtome"), images(b=4)
    fast(batch).square().sum().backward()
    whole = [p.grad.clone() for p in fast.base.parameters()]
    fast.zero_grad()
    for image in batch:
        fast(image[None]).square().sum().backward()
    for one, other in zip(whole, fast.base.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_to_one_row_and_back() -> None:
    x = torch.randn(2, 3, 4)
    packing = Packing(made("ats").backbone.blocks[0], torch.tensor([0, 1, 3]), 2)
    row = packing.packed(x)
    assert torch.equal(row[0], x[[0, 0, 1], [0, 1, 0]])
    back = packing.padded(row, x)
    assert torch.equal(back[0, :2], x[0, :2])
    assert torch.equal(back[0, 2:], torch.zeros(1, 4))
    assert torch.equal(back[1], torch.cat((x[1, :1], torch.zeros(2, 4))))


def test_nothing_is_packed_without_need() -> None:
    fast = made("dtome")
    _, trace = fast.run_with_trace(images(b=1))
    block, alone = fast.backbone.blocks[0], trace.states[-1]
    assert packing_of(block, alone) is None
    _, trace = fast.run_with_trace(images(b=4))
    full = replace(trace.states[-1], size=torch.ones_like(trace.states[-1].x[..., 0]))
    assert packing_of(block, full) is None
