"""Buffers that the blocks of one forward use in turn."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["Scratch"]


class Scratch:
    """Memory by name, made once: what is fresh costs a page fault a page.

    Whoever takes a name writes over what was there. Belongs to one forward, which drops it.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A contiguous tensor of this shape, of the type and device of ``like``, not cleared."""
        size = math.prod(shape)
        held = self._held.get(name)
        if (
            held is None
            or held.numel() < size
            or (held.dtype, held.device) != (like.dtype, like.device)
        ):
            self._held[name] = held = like.new_empty(size)
        return held[:size].view(shape)
