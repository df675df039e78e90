"""IdleViT's token cut loss."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import QKV
from tokenred.core.tensors import at_least_fp32, product

__all__ = ["CUTS", "mean_logits", "token_cut"]

CUTS = ("both", "inter", "intra", "none")
"""What the loss is of: attention across the cut, attention within the chosen, both or nothing."""


def token_cut(
    logits: Float[Tensor, "b N N"],
    mask: Float[Tensor, "b N"],
    num_prefix: int = 1,
    cut: str = "both",
) -> Float[Tensor, "b"]:
    """How far the attention is from staying on one side of the cut, for each image.

    With ``W = softmax(logits)`` and the mask m (1 for the prefix and the chosen, 0 for the idle)::

        inter: mean_i e_i²          e_i = Σ_j |m_i − m_j| W_ij   over image tokens j
        intra: mean_i (u_i − m_i)²  u_i = Σ_j m_i m_j W_ij       over all tokens j

    The mask is a constant; the gradient goes to the logits. In fp32 or better.

    Args:
        logits: pre-softmax attention, the mean over heads.
        mask: which tokens are chosen.
        num_prefix: ``p``; the prefix is on either side of the cut.
        cut: ``"inter"``, ``"intra"`` or ``"both"``, the sum of the two.

    Source: IdleViT (Xu et al., AJCAI 2023, arXiv 2310.05654), the token cut loss.
    """
    wide = at_least_fp32(logits.dtype)
    weights, m = logits.to(wide).softmax(dim=-1), mask.detach().to(wide)
    total = weights.new_zeros(weights.shape[0])
    if cut in ("inter", "both"):
        apart = (m[:, :, None] - m[:, None, num_prefix:]).abs()
        total = total + (apart * weights[..., num_prefix:]).sum(dim=-1).square().mean(dim=1)
    if cut in ("intra", "both"):
        within = m * (weights * m[:, None, :]).sum(dim=-1)
        total = total + (within - m).square().mean(dim=1)
    return total


def mean_logits(heads: QKV) -> Float[Tensor, "b N N"]:
    """Pre-softmax attention of a block, the mean over heads, without a map for each head."""
    q, k = (t.transpose(1, 2).flatten(2) for t in (heads.q, heads.k))
    return product(q, k.transpose(-2, -1)) * (heads.scale / heads.q.shape[1])
