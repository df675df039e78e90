from __future__ import annotations

import pytest
import timm
import torch

import tokenred as tr
from tokenred.attention.spec import Scratch
from tokenred.attention.tiled import engine as tiled_engine
from tokenred.attention.tiled.tile import Workspace


def test_memory_is_used_again() -> None:
    scratch, like = Scratch(), torch.empty(0)
    first = scratch.take("map", (2, 3, 4), like)
    assert first.shape == (2, 3, 4)
    assert first.is_contiguous()
    smaller = scratch.take("map", (5, 2), like)
    assert smaller.shape == (5, 2)
    assert smaller.data_ptr() == first.data_ptr()
    assert scratch.take("other", (2,), like).data_ptr() != first.data_ptr()
    larger = scratch.take("map", (100,), like)
    assert larger.shape == (100,)
    assert scratch.take("map", (24,), like).data_ptr() == larger.data_ptr()


def test_another_type_is_other_memory() -> None:
    scratch = Scratch()
    first = scratch.take("map", (4,), torch.empty(0))
    other = scratch.take("map", (4,), torch.empty(0, dtype=torch.float64))
    assert other.dtype == torch.float64
    assert other.data_ptr() != first.data_ptr()


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


def test_large_maps_are_dropped_with_their_block(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Scratch | None] = []
    init = Workspace.__init__

    def watched(self: Workspace, *given: object) -> None:
        init(self, *given)  # type: ignore[arg-type]
        held.append(self._scratch)

    monkeypatch.setattr(Workspace, "__init__", watched)
    model = timm.create_model("deit_tiny_patch16_224", img_size=64, depth=3).eval()
    reduced = tr.wrap(model, tr.strategy("gtp", P=1))
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        expected = reduced(images)
        assert len(set(map(id, held))) == 1
        held.clear()
        monkeypatch.setattr(tiled_engine, "_REUSED", 0)
        assert torch.equal(reduced(images), expected)
        assert len(set(map(id, held))) == len(held) == 3


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
