"""Operations that every second part needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

__all__ = ["at_least_fp32", "gather_tokens", "unit_vectors", "weighted_mean"]


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """The type to compute scores and weights in."""
    return torch.promote_types(dtype, torch.float32)


def gather_tokens(
    tokens: Shaped[Tensor, "b n c"], places: Int[Tensor, "b k"]
) -> Shaped[Tensor, "b k c"]:
    """The tokens at these places, one choice an image.

    Whole rows are copied, several times faster than ``gather`` with an index for each entry; give
    contiguous tokens, or they are copied first.
    """
    b, n, c = tokens.shape
    first = torch.arange(b, device=tokens.device).mul_(n)
    return F.embedding(places + first.unsqueeze(1), tokens.reshape(b * n, c))


def unit_vectors(x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """Each token scaled to length 1, in fp32 or better; a zero vector stays zero."""
    return F.normalize(x.to(at_least_fp32(x.dtype)), dim=-1, eps=1e-12)


def weighted_mean(
    x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"]
) -> Float[Tensor, "b 1 c"]:
    """The weighted mean of the tokens; the plain one where all weights are 0."""
    total = weight.sum(dim=1, keepdim=True)
    some = torch.where(total > 0, total, 1)
    share = torch.where(total > 0, weight / some, 1 / weight.shape[1])
    return share.to(x.dtype)[:, None] @ x
