"""ALGM's matching."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import unit_vectors
from tokenred.core.values import Blocks, Size
from tokenred.strategies.base import selectors
from tokenred.strategies.selectors.matching.threshold_matching import Cosine
from tokenred.strategies.selectors.padded import (
    ByImage,
    best_pairs,
    living,
    merged_pairs,
    padded_selection,
    ranked,
)


@selectors.register("LocalGlobal")
class LocalGlobal(ByImage):
    """Merge similar windows early and similar tokens later (ALGM, Norouzi et al., CVPR 2024).

    In the first of `layers`, a window of the grid becomes one token if the mean cosine of its
    tokens (over pairs of different ones) is at least τ. In the others, tokens are split as in ToMe,
    and every pair merges that is at least as close as ``mean + std/layer`` over the tokens of A in
    the image (layers counted from 1). Similarities are those of the features.

    How many windows merge depends on the image, so the tokens form no rectangle afterwards.

    Args:
        threshold: τ.
        layers: blocks that merge; None for the first, and the last before a third of the depth.
        window: height and width. An incomplete window does not merge, such as one at the
            border of a grid that the windows do not divide.
        count: ``"image"`` for each image separately; or ``"batch"`` as in the authors' code: all
            images merge as many as the one that merges fewest, and mean and std are averaged.

    Shapes:
        returns: ``keep`` = merged windows by descending similarity, then the rest by position
            (first layer), or the rest of A, then B; padding last; ``drop`` and ``partner``.
    """

    traits = Traits(equivariant=False, needs_grid=True)

    threshold: Cosine = 0.88
    layers: Blocks | None = None
    window: tuple[Size, Size] = (2, 2)
    count: Literal["image", "batch"] = "image"

    def blocks(self, depth: int) -> tuple[int, ...]:
        """The blocks that merge: by default 0 and 4 of 12."""
        return self.layers or tuple(sorted({0, depth // 3}))

    def adaptive(self, layer: int, depth: int) -> bool:
        return layer in self.blocks(depth)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens // 2) * (tokens - tokens // 2) * info.width)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        unit = unit_vectors(state.image.detach())
        local = state.layer == self.blocks(state.depth)[0]
        return self._windows(state, unit) if local else self._pairs(state, unit)

    def _windows(self, state: TokenState, unit: Float[Tensor, "b n c"]) -> Selection:
        alive, places = living(state), torch.arange(state.num_tokens, device=unit.device)
        tall, wide = self.window
        across = -(-state.grid[1] // wide)
        row, column = state.index // state.grid[1], state.index % state.grid[1]
        window = torch.where(alive & (state.index >= 0), row // tall * across + column // wide, 0)
        number = -(-state.grid[0] // tall) * across
        counted = (alive & (state.index >= 0)).to(unit.dtype)
        inside = unit.new_zeros(unit.shape[0], number).scatter_add(1, window, counted)
        total = unit.new_zeros(unit.shape[0], number, unit.shape[2])
        at = window[..., None].expand_as(unit)
        total = total.scatter_add(1, at, unit * counted[..., None])
        own = unit.new_zeros(unit.shape[0], number)
        own = own.scatter_add(1, window, unit.square().sum(dim=-1) * counted)
        # Σ over pairs of different tokens = ‖Σ‖² − Σ‖·‖².
        size = tall * wide
        similarity = (total.square().sum(dim=-1) - own) / max(1, size * (size - 1))
        joins = (similarity >= self.threshold) & (inside == size) & (size > 1)
        similarity = similarity.masked_fill(~joins, -torch.inf)
        if self.count == "batch" and joins.shape[0]:
            joins = ranked(similarity) < joins.sum(dim=1).min()
        merged = joins.gather(1, window) & (counted > 0)
        first = torch.full_like(window[:, :1].expand(-1, number), len(places))
        first = first.scatter_reduce(1, window, places.expand_as(window), "amin")
        partner = first.gather(1, window)
        kept = alive & (~merged | (places == partner))
        last = len(places) + number
        rank = torch.where(merged, ranked(similarity).gather(1, window), last + places)
        return padded_selection(rank, kept, alive, partner)

    def _pairs(self, state: TokenState, unit: Float[Tensor, "b n c"]) -> Selection:
        alive = living(state)
        closeness, partner = best_pairs(unit, alive, state.num_prefix)
        rows = closeness.isfinite()
        number = rows.sum(dim=1)
        best = closeness.masked_fill(~rows, 0)
        mean = best.sum(dim=1) / number.clamp_min(1)
        spread = (best - mean[:, None]).square().masked_fill(~rows, 0).sum(dim=1)
        std = (spread / (number - 1).clamp_min(1)).sqrt()
        if self.count == "batch" and mean.shape[0]:
            mean, std = mean.mean().expand_as(mean), std.mean().expand_as(std)
        least = mean + std / (state.layer + 1)
        moves = rows & (closeness >= least[:, None]) & (number > 1)[:, None]
        if self.count == "batch" and mean.shape[0]:
            moves = rows & (ranked(closeness) < moves.sum(dim=1).min())
        return merged_pairs(state, alive, closeness, partner, moves)
