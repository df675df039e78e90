"""Which token has which patch, noted while the blocks run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, gather_tokens
from tokenred.reduced.kept import KeptTokens
from tokenred.reduced.trace import Recorder, carry, left_index
from tokenred.reduced.unreduce import features_left

if TYPE_CHECKING:
    from tokenred.strategies.base import Fuser

__all__ = ["Origins"]


class Origins(Recorder):
    """Notes the tokens after some blocks and which of them has which patch.

    That is all that dense features need. Unlike a `Trace` it keeps no step, reads no value and
    fits into a graph (torch.compile, torch.export). A reduction costs it a copy of ``(b, n, N0)``
    weights.

    Args:
        state: before the first block.
        layers: the blocks to note; −1 for what enters the first.
        owners: whether anybody wants to know which token has which patch.
        masks: whether ``state.memory["mask"]`` tells which tokens are alive (`Selector.masks`).
    """

    wants_share = False

    def __init__(
        self, state: TokenState, layers: Collection[int], *, owners: bool, masks: bool
    ) -> None:
        super().__init__(state)
        b, n = state.index.shape
        self._weights: Tensor | None = None
        if owners:
            nothing = torch.zeros(b, n, state.num_patches, device=state.x.device)
            self._weights = nothing.scatter(2, state.index[..., None], 1.0)
        self._newest = -1
        self._left: dict[int, tuple[Tensor, Tensor]] = {}
        self._layers = frozenset(layers)
        self._states: dict[int, TokenState] = {-1: state} if -1 in self._layers else {}
        self._owners: dict[int, Tensor] = {}
        self._masks = masks

    def reduction(
        self,
        before: TokenState,
        selection: Selection,
        attention: AttentionStats,
        fuser: Fuser,
    ) -> None:
        if self._weights is None:
            return
        went = gather_tokens(before.image, selection.drop)
        self._left[before.layer] = went, left_index(before, selection)
        if before.layer <= self._newest:
            # A checkpointed block that runs again for the backward.
            return
        self._newest = before.layer
        with torch.no_grad():
            weights = carry(fuser, before, selection, attention, self._weights)
            if selection.alive is not None:
                weights = weights * selection.alive[..., None]
            self._weights = weights

    def block(self, state: TokenState) -> None:
        if state.layer not in self._layers:
            return
        self._states[state.layer] = state
        if self._weights is not None:
            largest, owner = self._weights.abs().max(dim=1)
            self._owners[state.layer] = torch.where(largest > 0, owner, -1)

    def kept(self, layer: int, norm: Callable[[Tensor], Tensor] | None = None) -> KeptTokens:
        """The tokens after a block that was noted, all features normalised if ``norm`` is given."""
        state = self._states[layer]
        x = state.x if norm is None else norm(state.x)
        p, size = state.num_prefix, state.image_size
        if size is None:
            size = torch.ones_like(state.index, dtype=at_least_fp32(x.dtype))
        masked = self._masks and "mask" in state.memory
        kept = KeptTokens(
            tokens=x[:, p:],
            index=state.index,
            size=size,
            alive=(state.memory["mask"][:, p:] if masked else size) > 0,
            prefix=x[:, :p],
            grid=state.grid,
        )
        if self._weights is None:
            return kept
        left = [
            (feature if norm is None else norm(feature), index)
            for at, (feature, index) in self._left.items()
            if at <= layer
        ]
        last = features_left(left, state.num_patches)
        return replace(kept, owner=self._owners[layer], left=last)
