from __future__ import annotations

import pytest
import timm
import torch

import tokenred as tr
from tokenred.attention.spec import Scratch


@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_a_forward_makes_its_buffers_once(theta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[int]] = {}
    take = Scratch.take

    def watched(self: Scratch, name: str, shape: tuple[int, ...], like: torch.Tensor) -> object:
        found = take(self, name, shape, like)
        seen.setdefault(name, set()).add(found.data_ptr())
        return found

    monkeypatch.setattr(Scratch, "take", watched)
    model = timm.create_model("deit_tiny_patch16_224", img_size=64, depth=4).eval()
    reduced = tr.wrap(model, tr.strategy("gtp", P=1, theta=theta))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        reduced(images)
    assert "map" in seen
    assert {name: len(places) for name, places in seen.items()} == dict.fromkeys(seen, 1)


def test_nothing_is_held_between_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Scratch] = []
    init = Scratch.__init__

    def watched(self: Scratch) -> None:
        init(self)
        made.append(self)

    monkeypatch.setattr(Scratch, "__init__", watched)
    model = timm.create_model("deit_tiny_patch16_224", img_size=64, depth=2).eval()
    reduced = tr.wrap(model, tr.strategy("gtp", P=1))
    with torch.no_grad():
        first = reduced(torch.zeros(1, 3, 64, 64))
        second = reduced(torch.zeros(1, 3, 64, 64))
    assert torch.equal(first, second)
    assert len(made) == 2
    # With gradients a buffer may not be written over.
    reduced(torch.zeros(1, 3, 64, 64))
    assert len(made) == 2
