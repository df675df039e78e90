"""Observers of a forward: a span for each phase, a recorder for the tokens."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Taken:
    """One reduction as it happened.

    Attributes:
        before, selection, attention: what the fuser was given.
        fuser: what happens to the removed tokens.
    """

    before: TokenState
    selection: Selection
    attention: AttentionStats
    fuser: Fuser

    def transport(self) -> Transport | None:
        """What the fuser describes; None if it has its own ``__call__``."""
        state, fuser = self.before, self.fuser
        if not fuser.tells_transport:
            return None
        return fuser.transport(state, self.selection, state.graph, self.attention)

    def carry(self, tokens: Float[Tensor, "b n w"]) -> Float[Tensor, "b m w"]:
        """The same for other image tokens; its weights may depend on those that were reduced."""
        state = self.before
        front = tokens.new_zeros(tokens.shape[0], state.num_prefix, tokens.shape[2])
        probe = replace(state, x=torch.cat((front, tokens), dim=1))
        if (transport := self.transport()) is not None:
            return transport.apply(probe).image
        return self.fuser(probe, self.selection, state.graph, self.attention).image

    def matrix(self) -> Float[Tensor, "b m n"]:
        """Its weights, described by the fuser or found by sending unit vectors through it."""
        state = self.before
        if (transport := self.transport()) is not None:
            return transport.matrix(state.num_tokens)
        units = torch.eye(state.num_tokens, dtype=state.x.dtype, device=state.x.device)
        return self.carry(units.expand(state.x.shape[0], -1, -1))

    def left(self) -> tuple[Float[Tensor, "b P c"], Int[Tensor, "b P"]]:
        """The removed tokens and their positions, −1 for padding and for tokens that stay."""
        gone = self.selection.gone
        index = self.before.index.gather(1, self.selection.drop)
        index = index if gone is None else torch.where(gone, index, -1)
        return gather_tokens(self.before.image, self.selection.drop), index


class Recorder:
    """Is told what happens to the tokens; this base class keeps nothing.

    Attributes:
        looks: statistics of every block's attention that `attended` reads. All but
            `AttentionStat.kept` make every block compute its map.
    """

    looks: tuple[AttentionStat, ...] = ()

    def block(self, state: TokenState) -> None:
        """Called with the tokens before the first block (``state.layer`` is −1) and after each."""

    def reduction(self, taken: Taken) -> None:
        """Called when tokens are removed."""

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

    def reduction(self, taken: Taken) -> None:
        if self._weights is None:
            return
        left, alive = taken.left(), taken.selection.alive
        if taken.before.layer <= self._ended:
            return  # a checkpointed block that runs again for the backward
        self._left.append((taken.before.layer, left))
        with torch.no_grad():
            weights = taken.carry(self._weights)
            self._weights = weights if alive is None else weights * alive[..., None]

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
