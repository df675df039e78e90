"""The tokens that a reduced model keeps: what it hands on to a language model or a dense head.

And `Origins`, which notes them while the blocks run, with the patches that each of them has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.errors import ConfigError
from tokenred.core.part import check_choice
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, gather_tokens
from tokenred.reduced.recorder import Recorder
from tokenred.reduced.trace import carry, left_index
from tokenred.reduced.unreduce import FILLS, features_left, fill_grid
from tokenred.strategies.base import Fuser

__all__ = ["KeptTokens", "Origins"]


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """Image tokens with their places on the grid. Made by `ReducedViT.kept_tokens`.

    Shapes: ``b`` batch, ``p`` prefix tokens, ``n`` image tokens, ``N0 = gh·gw`` patches.

    Attributes:
        tokens: the image tokens.
        index: position of each on the grid, row by row from 0; −1 for a token that stands for no
            single patch (a fused token) and for padding.
        size: how many patches each stands for, as the method counts; 1 where it does not count, 0
            for padding.
        alive: False for padding, where images of the batch keep different numbers of tokens, and
            in training forms for tokens that inference would have dropped. The mask that a
            language model wants.
        prefix: CLS, distillation and register tokens.
        grid: ``(gh, gw)``.
        owner: for each patch the token that has the most of it, −1 where none has any; None unless
            it was asked for.
        left: for each patch its own feature when its token went, in places that `owner` leaves
            open; None where nothing was recorded.
    """

    tokens: Float[Tensor, "b n c"]
    index: Int[Tensor, "b n"]
    size: Float[Tensor, "b n"]
    alive: Bool[Tensor, "b n"]
    prefix: Float[Tensor, "b p c"]
    grid: tuple[int, int]
    owner: Int[Tensor, "b N0"] | None = None
    left: Float[Tensor, "b N0 c"] | None = None

    @property
    def place(self) -> Int[Tensor, "b n 2"]:
        """Row and column of each token, (−1, −1) for one of no single patch."""
        row = torch.div(self.index, self.grid[1], rounding_mode="floor")
        place = torch.stack((row, self.index % self.grid[1]), dim=-1)
        return torch.where(self.index[..., None] >= 0, place, -1)

    def sorted(self) -> KeptTokens:
        """In raster order; tokens of no single patch after the others, padding at the end."""
        last = self.grid[0] * self.grid[1]
        key = torch.where(self.index >= 0, self.index, last)
        order = torch.where(self.alive, key, key + last + 1).argsort(dim=1, stable=True)
        owner = self.owner
        if owner is not None:
            now_at = order.argsort(dim=1)
            owner = torch.where(owner >= 0, now_at.gather(1, owner.clamp_min(0)), -1)
        return replace(
            self,
            tokens=gather_tokens(self.tokens, order),
            index=self.index.gather(1, order),
            size=self.size.gather(1, order),
            alive=self.alive.gather(1, order),
            owner=owner,
        )

    def unreduce(self, fill: str | None = None) -> Float[Tensor, "b N0 c"]:
        """Tokens on the full grid, in raster order: each patch has the token that owns it.

        Without `owner`, a token owns the patch at its own position and no other.

        Args:
            fill: for patches that no token owns: ``"last"``, the patch's own feature when it left;
                ``"nearest"``, the token of the nearest patch that has one; ``"zero"``. Or
                ``"own"``: the own last feature for every patch whose token went, also where another
                token has absorbed it, so that no two patches share a feature. By default ``"last"``
                where it was recorded, else ``"nearest"``.

        Raises:
            ConfigError: for another ``fill``, and for features that were not recorded.
            InputError: for ``"last"`` and ``"own"`` with tokens of another width (a projector's).
        """
        if fill is None:
            fill = "nearest" if self.owner is None else "last"
        check_choice(self, "fill", fill, FILLS)
        if fill in ("last", "own") and self.owner is None:
            raise ConfigError(
                f"fill={fill!r} needs a record of the tokens that left. Ask for one, "
                "kept_tokens(images, owners=True), or use fill='nearest'."
            )
        return fill_grid(self.tokens, self.index, self.owner, self.grid, fill, self.left)

    def dense(self, fill: str | None = None) -> Float[Tensor, "b c gh gw"]:
        """`unreduce` as a feature map, which is what a convolutional decoder takes."""
        full = self.unreduce(fill)
        rows, columns = self.grid
        return full.transpose(1, 2).reshape(*full.mT.shape[:2], rows, columns).contiguous()


# So that a graph of torch.export can give it back.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # PyTorch 2.6 calls what it gave up itself
    torch.export.register_dataclass(KeptTokens, serialized_type_name="tokenred.KeptTokens")


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

    def __init__(
        self, state: TokenState, layers: Collection[int], *, owners: bool, masks: bool
    ) -> None:
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
        self, before: TokenState, selection: Selection, attention: AttentionStats, fuser: Fuser
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

    def state(self, layer: int) -> TokenState:
        """The tokens after a block that was noted, as they travel."""
        return self._states[layer]

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
