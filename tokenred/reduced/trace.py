"""The record of one forward: which token came from where, in every block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.part import check_choice
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import gather_tokens
from tokenred.reduced.recorder import Recorder
from tokenred.reduced.unreduce import FILLS, features_left, fill_grid
from tokenred.strategies.base import Fuser
from tokenred.strategies.transport import Transport

__all__ = ["AliveCounts", "Step", "Trace", "TraceRecorder", "carry", "fuser_matrix", "left_index"]


@dataclass(frozen=True, eq=False)
class Step:
    """One reduction: which block, what it chose, and the fuser's weights.

    Attributes:
        layer: the block.
        selection: what stayed and went.
        weights: ``(b, n', n)`` sparse, from the image tokens before to those after.
        left: ``(b, P, c)`` features of the tokens that went, as they left.
        left_index: ``(b, P)`` their positions.
    """

    layer: int
    selection: Selection
    weights: Tensor
    left: Float[Tensor, "b P c"]
    left_index: Int[Tensor, "b P"]


@dataclass(frozen=True, eq=False)
class Trace:
    """What a forward did with the tokens.

    Attributes:
        grid: ``(gh, gw)``.
        num_prefix: ``p``.
        start_index: ``(b, n)`` positions that entered the first block.
        index: ``(b, n)`` positions of the tokens at the end, −1 for one of no single patch.
        steps: the reductions, in order.
        features: tokens after each block, ``(b, N, c)``, prefix included.
        tokens_per_layer: image tokens after each block, prefix not counted.
        index_per_layer: ``(b, n)`` positions after each block.
        memory: what the method carried at the end.
        theta_error: share of attention entries kept − θ in each block, ``(b, h)``; empty at θ = 1.
        alive_per_layer: ``(b,)`` image tokens of each image after each block, without padding.
        attention_maps: by block, see `attention`; empty unless they were asked for.
        attention_index: by block, ``(b, n)`` positions of the image tokens in the block's map.
    """

    grid: tuple[int, int]
    num_prefix: int
    start_index: Int[Tensor, "b n0"]
    index: Int[Tensor, "b n"]
    steps: tuple[Step, ...]
    features: tuple[Tensor, ...]
    tokens_per_layer: tuple[int, ...]
    index_per_layer: tuple[Tensor, ...]
    memory: Mapping[str, Tensor]
    theta_error: tuple[Float[Tensor, "b h"], ...] = ()
    alive_per_layer: tuple[Int[Tensor, "b"], ...] = ()
    attention_maps: Mapping[int, Tensor] = field(default_factory=dict)
    attention_index: Mapping[int, Tensor] = field(default_factory=dict)

    def attention(self, layer: int) -> Float[Tensor, "b *h N N"]:
        """The attention map of a block, as the values met it: after ``log s``, masks and θ.

        Rows and columns are the tokens that entered the block's attention, prefix first, at the
        positions `attention_index` says.

        Args:
            layer: which block, negative from the end.

        Shapes:
            returns: ``(b, N, N)``, the mean over heads, or ``(b, h, N, N)``, as it was asked for.

        Raises:
            ConfigError: for a block that does not exist or has no attention, and where no maps were
                asked for.
        """
        depth = len(self.index_per_layer)
        if not -depth <= layer < depth:
            raise ConfigError(f"block {layer} is asked for; the trace has blocks 0 to {depth - 1}.")
        if layer % depth not in self.attention_maps:
            raise ConfigError(
                f"no attention map of block {layer} was recorded. Ask for them: "
                "run_with_trace(images, attention='mean'), or 'heads' for each head."
            )
        return self.attention_maps[layer % depth]

    @property
    def num_patches(self) -> int:
        """``N0``."""
        return self.grid[0] * self.grid[1]

    def cut(self, layer: int) -> Trace:
        """The trace as it was after a block."""
        end = layer + 1
        return replace(
            self,
            index=self.index_per_layer[layer],
            steps=tuple(step for step in self.steps if step.layer <= layer),
            features=self.features[:end],
            tokens_per_layer=self.tokens_per_layer[:end],
            index_per_layer=self.index_per_layer[:end],
            theta_error=self.theta_error[:end],
            alive_per_layer=self.alive_per_layer[:end],
            attention_maps={k: v for k, v in self.attention_maps.items() if k <= layer},
            attention_index={k: v for k, v in self.attention_index.items() if k <= layer},
        )

    def weights(self) -> Float[Tensor, "b n N0"]:
        """How much of each patch's feature is in each final token, all reductions in one map.

        Fusers only: what attention mixes is not counted.
        """
        b, n = self.start_index.shape
        total = torch.zeros(b, n, self.num_patches, device=self.start_index.device)
        total.scatter_(2, self.start_index[..., None], 1.0)
        for step in self.steps:
            total = step.weights.to_dense().to(total.dtype) @ total
        return total

    def owners(self) -> Int[Tensor, "b N0"]:
        """For each patch, the final image token with the largest weight from it (0 … n−1).

        −1 where nothing of it is left.
        """
        largest, owner = self.weights().abs().max(dim=1)
        return torch.where(largest > 0, owner, -1)

    def unreduce(
        self,
        tokens: Float[Tensor, "b m c"],
        fill: str = "last",
        *,
        norm: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "b N0 c"]:
        """Tokens back on the full grid, each patch with the token that owns it.

        Args:
            tokens: ``(b, n, c)`` final image tokens, or ``(b, p+n, c)`` with the prefix, which is
                left out.
            fill: for patches of which nothing is left, see `KeptTokens.unreduce`.
            norm: applied to the features of those that left, which are from inside the model, where
                ``tokens`` are from after its final norm (``reduced.backbone.norm``).

        Raises:
            ConfigError: for another ``fill``.
            InputError: for tokens of another count, or of another width with features that left.
        """
        check_choice(self, "fill", fill, FILLS)
        n = self.index.shape[1]
        if tokens.shape[1] == n + self.num_prefix:
            tokens = tokens[:, self.num_prefix :]
        if tokens.shape[1] != n:
            raise InputError(
                f"expected the {n} final image tokens, or {n + self.num_prefix} with the prefix; "
                f"got {tokens.shape[1]}."
            )
        left = [(s.left if norm is None else norm(s.left), s.left_index) for s in self.steps]
        last = features_left(left, self.num_patches) if fill in ("last", "own") else None
        return fill_grid(tokens, self.index, self.owners(), self.grid, fill, last)


class TraceRecorder(Recorder):
    """Collects a trace while the blocks run.

    Args:
        start: before the first block.
        attention: the attention maps to keep of all blocks, or None.
    """

    wants_share = True

    def __init__(self, start: TokenState, attention: AttentionStat | None = None) -> None:
        self.start, self.attention = start, attention
        self.maps: dict[int, Tensor] = {}
        self.maps_index: dict[int, Tensor] = {}
        self.steps: list[Step] = []
        self.features: list[Tensor] = []
        self.index: list[Tensor] = []
        self.theta_error: list[Tensor] = []
        self.alive: list[Tensor] = []

    def reduction(
        self, before: TokenState, selection: Selection, attention: AttentionStats, fuser: Fuser
    ) -> None:
        matrix = fuser_matrix(fuser, before, selection, attention)
        if selection.alive is not None:
            matrix = matrix * selection.alive[..., None]
        left = gather_tokens(before.image, selection.drop)
        at = left_index(before, selection)
        self.steps.append(Step(before.layer, selection, matrix.to_sparse(), left, at))

    def attended(self, state: TokenState, attention: Tensor) -> None:
        self.maps[state.layer] = attention
        self.maps_index[state.layer] = state.index

    def sparsified(self, error: Float[Tensor, "b h"]) -> None:
        self.theta_error.append(error)

    def block(self, state: TokenState) -> None:
        self.features.append(state.x)
        self.index.append(state.index)
        self.alive.append(_alive(state))

    def trace(self, state: TokenState) -> Trace:
        """What was noted, up to the state at the end."""
        return Trace(
            grid=state.grid,
            num_prefix=state.num_prefix,
            start_index=self.start.index,
            index=state.index,
            steps=tuple(self.steps),
            features=tuple(self.features),
            tokens_per_layer=tuple(index.shape[1] for index in self.index),
            index_per_layer=tuple(self.index),
            memory=dict(state.memory),
            theta_error=tuple(self.theta_error),
            alive_per_layer=tuple(self.alive),
            attention_maps=dict(self.maps),
            attention_index=dict(self.maps_index),
        )


class AliveCounts(Recorder):
    """Counts the image tokens of each image, before the first block and after every block."""

    def __init__(self, start: TokenState) -> None:
        self.alive = [_alive(start)]

    def block(self, state: TokenState) -> None:
        self.alive.append(_alive(state))


def _alive(state: TokenState) -> Int[Tensor, "b"]:
    """Image tokens without padding."""
    size = state.image_size
    alive = torch.ones_like(state.index) if size is None else (size > 0).long()
    return alive.sum(dim=1)


def left_index(before: TokenState, selection: Selection) -> Int[Tensor, "b P"]:
    """Positions of the tokens that go, −1 for places that are padding or stay."""
    index = before.index.gather(1, selection.drop)
    return index if selection.gone is None else torch.where(selection.gone, index, -1)


def fuser_matrix(
    fuser: Fuser, state: TokenState, selection: Selection, attention: AttentionStats
) -> Float[Tensor, "b m n"]:
    """The weights of one reduction, ``(b, n', n)``.

    A fuser that describes its transport is asked; of another, unit vectors sent through it tell.
    """
    transport = _described(fuser, state, selection, attention)
    if transport is not None:
        return transport.matrix(state.num_tokens)
    units = torch.eye(state.num_tokens, dtype=state.x.dtype, device=state.x.device)
    return carry(fuser, state, selection, attention, units.expand(state.x.shape[0], -1, -1))


def carry(
    fuser: Fuser,
    state: TokenState,
    selection: Selection,
    attention: AttentionStats,
    tokens: Float[Tensor, "b n w"],
) -> Float[Tensor, "b m w"]:
    """What a reduction makes of other image tokens in the places of the state's own."""
    front = tokens.new_zeros(tokens.shape[0], state.num_prefix, tokens.shape[2])
    probe = replace(state, x=torch.cat((front, tokens), dim=1))
    # Its weights may depend on the tokens themselves: they are those of the state.
    transport = _described(fuser, state, selection, attention)
    if transport is not None:
        return transport.apply(probe).image
    return fuser(probe, selection, state.graph, attention).image


def _described(
    fuser: Fuser, state: TokenState, selection: Selection, attention: AttentionStats
) -> Transport | None:
    """The transport that a fuser describes; None of one that has its own ``__call__``."""
    if not fuser.tells_transport:
        return None
    return fuser.transport(state, selection, state.graph, attention)
