"""Observers of a forward: a span for each phase, a recorder for the tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.capture import replace
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, gather_tokens
from tokenred.reduced.kept import KeptTokens, features_left, largest
from tokenred.strategies.base import Fuser
from tokenred.strategies.transport import Transport

Span: TypeAlias = Callable[[str], AbstractContextManager[None]]

PHASES = (
    "embed",  # patches, positions, the norm before the blocks
    "graph",
    "block",  # a block that is not opened
    "heads",  # norm, queries, keys, values
    "attention",  # including its statistics
    "project",  # output projection and residual; a parallel block's MLP
    "select",
    "fuse",
    "mlp",
    "head",  # norm, pooling, classifier
)
"""The phases of a forward, in order. A router's split counts as "select", its join as "fuse"."""


def no_span(phase: str) -> AbstractContextManager[None]:
    """Observe nothing."""
    return nullcontext()


class Recorder:
    """Is told what happens to the tokens; this base class keeps nothing.

    Attributes:
        looks: statistics of every block's attention that `attended` reads. All but
            `AttentionStat.kept` make every block compute its map.
    """

    looks: tuple[AttentionStat, ...] = ()

    def block(self, state: TokenState) -> None:
        """Called with the tokens before the first block (``state.layer`` is −1) and after each."""

    def reduction(
        self, before: TokenState, selection: Selection, attention: AttentionStats, fuser: Fuser
    ) -> None:
        """Called when tokens are removed: the state before, the selection and the fuser."""

    def attended(self, state: TokenState, attention: AttentionStats) -> None:
        """Called with `looks`; rows and columns of a map are the tokens of ``state``."""


class AliveCounts(Recorder):
    """Counts the image tokens of each image, before the first block and after every block."""

    def __init__(self) -> None:
        self.alive: list[Int[Tensor, "b"]] = []

    def block(self, state: TokenState) -> None:
        self.alive.append(alive_tokens(state))


class Origins(Recorder):
    """Records the tokens after some blocks and, with ``owners``, which of them owns each patch.

    Unlike a `Trace` it keeps no steps, reads no values and works inside a graph (torch.compile,
    torch.export). Each reduction costs a copy of ``(b, n, N0)`` weights.

    ``layers`` are the blocks to record, −1 for the tokens that enter the first; with ``masks`` (see
    `Selector.masks`) ``state.memory["mask"]`` tells which tokens are alive.
    """

    def __init__(self, layers: Collection[int], *, owners: bool, masks: bool) -> None:
        self._layers, self._wants_owners, self._masks = frozenset(layers), owners, masks
        self._weights: Tensor | None = None
        self._ended = -1
        self._left: list[tuple[int, tuple[Tensor, Tensor]]] = []
        self._owners: dict[int, Tensor] = {}
        self.states: dict[int, TokenState] = {}

    def reduction(
        self, before: TokenState, selection: Selection, attention: AttentionStats, fuser: Fuser
    ) -> None:
        if self._weights is None:
            return
        left = tokens_left(before, selection)
        if before.layer <= self._ended:
            return  # a checkpointed block that runs again for the backward
        self._left.append((before.layer, left))
        with torch.no_grad():
            weights = carry(fuser, before, selection, attention, self._weights)
            if selection.alive is not None:
                weights = weights * selection.alive[..., None]
            self._weights = weights

    def block(self, state: TokenState) -> None:
        self._ended = state.layer
        if state.layer < 0 and self._wants_owners:
            self._weights = own_patches(state)
        if state.layer in self._layers:
            self.states[state.layer] = state
            if self._weights is not None:
                self._owners[state.layer] = largest(self._weights)

    def kept(self, layer: int, norm: Callable[[Tensor], Tensor] | None = None) -> KeptTokens:
        """The tokens after a recorded block, with all features normalised if ``norm`` is given."""
        state = self.states[layer]
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
            token_grid=state.token_grid,
        )
        if layer not in self._owners:
            return kept
        left = [both for at, both in self._left if at <= layer]
        last = features_left(left, state.num_patches, norm)
        return replace(kept, owner=self._owners[layer], left=last)


def alive_tokens(state: TokenState) -> Int[Tensor, "b"]:
    """Image tokens without padding."""
    size = state.image_size
    alive = torch.ones_like(state.index) if size is None else (size > 0).long()
    return alive.sum(dim=1)


def own_patches(state: TokenState) -> Float[Tensor, "b n N0"]:
    """Weights of patches in tokens if each token owns only the patch at its position."""
    nothing = torch.zeros(*state.index.shape, state.num_patches, device=state.x.device)
    return nothing.scatter(2, state.index[..., None], 1.0)


def tokens_left(
    before: TokenState, selection: Selection
) -> tuple[Float[Tensor, "b P c"], Int[Tensor, "b P"]]:
    """The removed tokens and their positions, −1 for padding and for tokens that stay."""
    index = before.index.gather(1, selection.drop)
    if selection.gone is not None:
        index = torch.where(selection.gone, index, -1)
    return gather_tokens(before.image, selection.drop), index


def carry(
    fuser: Fuser,
    state: TokenState,
    selection: Selection,
    attention: AttentionStats,
    tokens: Float[Tensor, "b n w"],
) -> Float[Tensor, "b m w"]:
    """Apply a reduction to other image tokens instead of the state's."""
    front = tokens.new_zeros(tokens.shape[0], state.num_prefix, tokens.shape[2])
    probe = replace(state, x=torch.cat((front, tokens), dim=1))
    # Its weights may depend on the tokens, so they come from the state.
    transport = described(fuser, state, selection, attention)
    if transport is not None:
        return transport.apply(probe).image
    return fuser(probe, selection, state.graph, attention).image


def described(
    fuser: Fuser, state: TokenState, selection: Selection, attention: AttentionStats
) -> Transport | None:
    """The transport that a fuser describes; None if it has its own ``__call__``."""
    if not fuser.tells_transport:
        return None
    return fuser.transport(state, selection, state.graph, attention)
