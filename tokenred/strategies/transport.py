"""How image tokens travel through one reduction: a linear map, applied and recorded alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.capture import replace
from tokenred.core.tensors import gather_tokens, product

if TYPE_CHECKING:
    from tokenred.core.state import TokenState

__all__ = ["Transport"]


@dataclass(frozen=True, eq=False)
class Transport:
    """``x' = stay ⊙ x[keep] + move · x[drop]``, prefix tokens untouched.

    Attributes:
        keep, drop: places of the image tokens that stay and go.
        move: ``(b, k+extra, P)`` weights of the tokens that go, ``(b, extra, P)`` where the new
            tokens alone have any, or None where nothing moves.
        stay: ``(b, k)`` weights of the tokens that stay, or None for 1.
        size_move: weights of the sizes that go, where they differ from `move`.
        extra: new tokens at the end, made of dropped ones only; their index is −1.
    """

    keep: Int[Tensor, "b k"]
    drop: Int[Tensor, "b P"]
    move: Float[Tensor, "b m P"] | None = None
    stay: Float[Tensor, "b k"] | None = None
    size_move: Float[Tensor, "b m P"] | None = None
    extra: int = 0

    def apply(self, state: TokenState) -> TokenState:
        """The state after the reduction."""
        index = state.index.gather(1, self.keep)
        if self.extra:
            index = torch.cat((index, index.new_full((index.shape[0], self.extra), -1)), dim=1)
        first, places = state.num_prefix, state.places(self.keep)
        gone = None if self.move is None and self.size_move is None else self.drop + first
        size = state.size
        if size is not None:
            moved = self.move if self.size_move is None else self.size_move
            size = self._carry_sizes(size, first, places, gone, moved)
        return replace(state, x=self._carry(state.x, first, places, gone), index=index, size=size)

    def matrix(self, tokens: int) -> Float[Tensor, "b m n"]:
        """The map as a matrix from ``tokens`` image tokens to those that remain."""
        b, k = self.keep.shape
        like = self.move if self.move is not None else self.stay
        dtype = torch.float32 if like is None else like.dtype
        out = torch.zeros(b, k + self.extra, tokens, dtype=dtype, device=self.keep.device)
        if self.move is not None:
            rows = self.move.shape[1]
            at = self.drop[:, None, :].expand(-1, rows, -1)
            out[:, k + self.extra - rows :].scatter_(2, at, self.move)
        own = torch.ones(b, k, dtype=dtype, device=out.device) if self.stay is None else self.stay
        out[:, :k].scatter_(2, self.keep[..., None], own[..., None])
        return out

    def _carry(
        self,
        tokens: Float[Tensor, "b N c"],
        first: int,
        places: Int[Tensor, "b q"],
        drop: Int[Tensor, "b P"] | None,
    ) -> Float[Tensor, "b M c"]:
        """All tokens in one gather, prefix first, and then changed where they lie."""
        kept = gather_tokens(tokens, places)
        image = kept[:, first:]
        if self.stay is not None:
            image.mul_(self.stay[..., None].to(kept.dtype))
        if self.move is None or drop is None:
            return kept
        move, gone = self.move.to(kept.dtype), gather_tokens(tokens, drop)
        if not self.extra:
            return kept.baddbmm_(_below(first, move), gone)
        return self._with_new(kept, first, product(move, gone).to(kept.dtype))

    def _carry_sizes(
        self,
        sizes: Float[Tensor, "b N"],
        first: int,
        places: Int[Tensor, "b q"],
        drop: Int[Tensor, "b P"] | None,
        move: Float[Tensor, "b m P"] | None,
    ) -> Float[Tensor, "b M"]:
        kept = sizes.gather(1, places)
        if move is None or drop is None:
            return kept
        move, gone = move.to(kept.dtype), sizes.gather(1, drop).unsqueeze(2)
        if not self.extra:
            kept[:, first:].unsqueeze(2).baddbmm_(move, gone)
            return kept
        return self._with_new(kept, first, product(move, gone).squeeze(2))

    def _with_new(
        self, kept: Float[Tensor, "b q *c"], first: int, moved: Float[Tensor, "b m *c"]
    ) -> Float[Tensor, "b M *c"]:
        """What moves to those that stay is added to them; the new tokens come last."""
        k = moved.shape[1] - self.extra
        if k:
            kept[:, first:].add_(moved[:, :k])
        return torch.cat((kept, moved[:, k:]), dim=1)


def _below(rows: int, move: Float[Tensor, "b k P"]) -> Float[Tensor, "b q P"]:
    """The weights below rows of zeros."""
    # A product into whole images is one call of BLAS, into a part of each one call an image.
    return F.pad(move, (0, 0, rows, 0)) if rows else move
