"""`check_selector` on selectors whose counts depend on the image: every planted fault is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Selector
from tokenred.testing import check_selector


class Bright(Selector):
    """Sound; the faults below each break it in one place. Keeps what is above the mean."""

    def adaptive(self, layer: int, depth: int) -> bool:
        return layer > 5

    def flags(self, state: TokenState, alive: Tensor) -> Tensor:
        light = state.image.double().sum(dim=-1)
        light = torch.where(alive, light, -torch.inf)
        total = torch.where(alive, light, 0).sum(1) / alive.sum(1).clamp_min(1)
        highest = light == light.amax(dim=1, keepdim=True)
        return ((light > total[:, None]) | highest) & alive

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        size = state.image_size
        alive = torch.ones_like(state.index, dtype=torch.bool) if size is None else size > 0
        flags = self.flags(state, alive)
        order = flags.long().sort(dim=1, descending=True, stable=True).indices
        kept = flags.sum(dim=1)
        most = int(kept.max())
        back = order.flip(1)
        return Selection(
            keep=order[:, :most],
            drop=back,
            alive=torch.arange(most) < kept[:, None],
            gone=(alive & ~flags).gather(1, back),
        )


class ForgetsPadding(Bright):
    def flags(self, state: TokenState, alive: Tensor) -> Tensor:
        return super().flags(state, alive) | ~alive


class KeepsNone(Bright):
    def flags(self, state: TokenState, alive: Tensor) -> Tensor:
        return torch.zeros_like(alive)


class LooksAround(Bright):
    def flags(self, state: TokenState, alive: Tensor) -> Tensor:
        return super().flags(replace(state, x=state.x * (1 + state.x[:1].mean().sign())), alive)


class ByPlace(Bright):
    def flags(self, state: TokenState, alive: Tensor) -> Tensor:
        return torch.cummax(alive.long(), dim=1).values.cumsum(dim=1).eq(1) & alive


class TooWide(Bright):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        chosen = super().__call__(state, attention, count)
        wide = torch.cat((chosen.keep, chosen.keep[:, :1]), dim=1)
        alive = torch.nn.functional.pad(chosen.alive, (0, 1))
        return replace(chosen, keep=wide, alive=alive)


class SaysNothing(Bright):
    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        return replace(super().__call__(state, attention, count), gone=None)


def test_a_sound_one_passes() -> None:
    check_selector(Bright())


@pytest.mark.parametrize(
    ("part", "promise"),
    [
        (ForgetsPadding(), "each once, and no padding"),
        (KeepsNone(), "images keep"),
        (LooksAround(), "alone as in a batch"),
        (ByPlace(), "permuting the tokens permutes"),
        (TooWide(), "places for at most"),
        (SaysNothing(), "with alive and gone"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_faults_are_found(part: Selector, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_selector(part)
