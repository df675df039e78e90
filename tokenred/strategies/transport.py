"""The linear map that a reduction applies to image tokens, for the features and the trace."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.capture import is_eager, replace
from tokenred.core.errors import PartError
from tokenred.core.state import TokenState
from tokenred.core.tensors import first_rows, product


@dataclass(frozen=True, eq=False)
class Transport:
    """``x' = stay ⊙ x[keep] + move · x[drop]``; prefix tokens are unchanged.

    Attributes:
        keep, drop: indices of the image tokens to keep and to remove.
        move: ``(b, k+extra, P)`` weights of the removed tokens, ``(b, extra, P)`` if only the new
            tokens have any, or None if nothing moves.
        stay: ``(b, k)`` weights of the kept tokens, or None for 1.
        size_move: weights of the removed sizes, if they differ from `move`.
        extra: number of new tokens at the end, made from removed ones only; their index is −1.
        index: positions of the kept tokens, if they are known.
        size: sizes of the remaining image tokens, if they are known.
    """

    keep: Int[Tensor, "b k"]
    drop: Int[Tensor, "b P"]
    move: Float[Tensor, "b m P"] | None = None
    stay: Float[Tensor, "b k"] | None = None
    size_move: Float[Tensor, "b m P"] | None = None
    extra: int = 0
    index: Int[Tensor, "b k"] | None = None
    size: Float[Tensor, "b m"] | None = None

    def apply(self, state: TokenState) -> TokenState:
        """The state after the reduction.

        Raises:
            PartError: for weights that are not remaining × removed tokens.
        """
        if self.move is not None:
            rows, columns = self.keep.shape[1] + self.extra, self.drop.shape[1]
            if self.move.shape[2] != columns or self.move.shape[1] not in (rows, self.extra):
                raise PartError(
                    f"Transport: expected move as (batch, {rows}, {columns}), remaining × removed "
                    f"tokens, got {tuple(self.move.shape)}."
                )
        index = state.index.gather(1, self.keep) if self.index is None else self.index
        if self.extra:
            index = F.pad(index, (0, self.extra), value=-1)
        # Rows among those of all images, found once for the tokens and their sizes.
        p = state.num_prefix
        start: Tensor | int = p
        if is_eager() and state.x.shape[0] == 1:
            kept = state.places(self.keep)
        else:
            start = first_rows(state.x, p)[:, None]
            kept = self.keep + start
            if p:
                front = start - 1 if p == 1 else start + torch.arange(-p, 0, device=start.device)
                kept = torch.cat((front, kept), dim=1)
        # PyTorch 2.6 cannot pad a matrix without columns.
        moves = self.move is not None and (self.drop.shape[1] > 0 or self.extra > 0)
        gone = self.drop + start if moves else None
        x = self._carry(state.x, kept, gone, p, self.move, self.stay)
        size = state.size
        if size is not None and self.size is not None:
            size = torch.cat((size[:, :p], self.size), dim=1)
        elif size is not None:
            move = self.move if self.size_move is None else self.size_move
            size = self._carry(size[..., None], kept, gone, p, move, None)[..., 0]
        return replace(state, x=x, index=index, size=size)

    def matrix(self, tokens: int) -> Float[Tensor, "b m n"]:
        """The map as a matrix from ``tokens`` image tokens to the remaining ones."""
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
        x: Float[Tensor, "b N c"],
        keep: Int[Tensor, "b q"],
        drop: Int[Tensor, "b P"] | None,
        first: int,
        move: Float[Tensor, "b m P"] | None,
        stay: Float[Tensor, "b k"] | None,
    ) -> Float[Tensor, "b M c"]:
        """The kept rows, ``first`` of the prefix, changed in place by the removed ones."""
        rows = x.reshape(-1, x.shape[2])
        kept = F.embedding(keep, rows)
        if stay is not None:
            kept[:, first:].mul_(stay[..., None].to(kept.dtype))
        if move is None or drop is None:
            return kept
        move, gone = move.to(kept.dtype), F.embedding(drop, rows)
        if not self.extra:
            if first and (kept.device.type != "cpu" or (is_eager() and kept.shape[0] == 1)):
                kept[:, first:].baddbmm_(move, gone)
                return kept
            # A CPU writes to whole images in one BLAS call, to parts of them in one per image.
            return kept.baddbmm_(F.pad(move, (0, 0, first, 0)), gone)
        # What moves to kept tokens is added to them; the new tokens come last.
        moved = product(move, gone).to(kept.dtype)
        k = moved.shape[1] - self.extra
        if k:
            kept[:, first:].add_(moved[:, :k])
        return torch.cat((kept, moved[:, k:]), dim=1)
