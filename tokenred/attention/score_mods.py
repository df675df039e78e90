"""What may be done to the attention map, in this order: log s, masks, softmax, θ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.core.capture import fixed
from tokenred.core.part import Part
from tokenred.core.registry import KINDS, Registry
from tokenred.core.tensors import at_least_fp32

if TYPE_CHECKING:
    from tokenred.attention.stats import AttentionStat, AttentionStats
    from tokenred.core.state import Selection, TokenState

__all__ = [
    "SLACK",
    "ScoreMod",
    "gated_softmax",
    "kept_entries",
    "score_mods",
    "size_bias",
    "slack_entries",
    "sparsify",
]


SLACK = 0.01
"""How far the share of entries kept may be from θ where its threshold is found the fast way.

In maps so small that one or two entries are more than that, the fast way keeps the exact number.
"""


class ScoreMod(Part):
    """Changes the logits of a block's attention, as a mask does. Needs the whole map.

    Shapes:
        logits: ``(b, h, N, N)``, ``log s`` already added; −∞ takes an entry out.
    """

    def active(self, layer: int, depth: int) -> bool:
        """Whether the score mod does anything in a block; the others keep their fast engine."""
        return True

    @property
    def in_training_only(self) -> bool:
        """Whether the score mod is part of a training form, and idle in inference."""
        return False

    @property
    def follows(self) -> bool:
        """Whether `follow` keeps something in ``state.memory`` that belongs to the tokens."""
        return False

    def requires(self, layer: int, depth: int) -> tuple[AttentionStat, ...]:
        """Statistics of a block's attention that `follow` reads."""
        return ()

    def follow(
        self, state: TokenState, attention: AttentionStats, selection: Selection | None
    ) -> TokenState:
        """What the score mod remembers, in step with the tokens.

        Called after a block's attention, and before the block as well where tokens go there.

        Args:
            state: after the reduction, where there was one.
            attention: the statistics of `requires`, of the tokens before it.
            selection: which tokens stayed; None where all did.
        """
        return state

    def __call__(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"]:
        """The edited logits."""
        raise NotImplementedError

    def normalize(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"] | None:
        """The map, where the score mod has a softmax of its own; None for the usual one."""
        return None


score_mods: Registry[ScoreMod] = KINDS["score_mods"]


def size_bias(size: Float[Tensor, "b N"]) -> Float[Tensor, "b N"]:
    """Proportional attention: ``log s`` for each key; a token of size 0 is dead (−∞).

    Source: ToMe (Bolya et al., ICLR 2023), Eq. 1; GTP-ViT, Eq. 11.
    """
    return size.log()


def gated_softmax(
    logits: Float[Tensor, "b h N N"], gate: Tensor | float, epsilon: float
) -> Float[Tensor, "b h N N"]:
    """``(e^{s−max}·G + ε/N) / (Σ e^{s−max}·G + ε)``, the maximum over all keys, in fp32 or better.

    Args:
        logits: s.
        gate: G, broadcast to the logits.
        epsilon: ε.

    Source: DynamicViT (Rao et al., NeurIPS 2021), section 3.3; Tri-Level's program.
    """
    scores = logits.to(at_least_fp32(logits.dtype))
    weight = (scores - scores.amax(dim=-1, keepdim=True)).exp() * gate
    total = weight.sum(dim=-1, keepdim=True) + epsilon
    return ((weight + epsilon / logits.shape[-1]) / total).to(logits.dtype)


def kept_entries(tokens: int, theta: float, reference: bool = False) -> int:
    """How many of the N² entries of a map stay: ⌈θN²⌉.

    Args:
        tokens: ``N``, prefix included.
        theta: θ in (0, 1].
        reference: one more, as in the authors' program, which keeps every entry that is at least
            the k-th smallest with k = int(N²(1−θ)).
    """
    total = fixed(tokens) ** 2
    if reference:
        k = int(total * (1 - theta))
        return total if k < 1 else total - k + 1
    # The small number takes back what 0.07 · 100 = 7.000…1 would add.
    return max(1, math.ceil(theta * total - 1e-6))


def slack_entries(total: int) -> int:
    """How many entries more or fewer than `kept_entries` are within `SLACK` of θ.

    ⌈θN²⌉ and the authors' count are up to two entries off θ themselves.
    """
    return max(0, int(SLACK * total) - 2)


def sparsify(
    attention: Float[Tensor, "b h N N"], theta: float, reference: bool = False
) -> Float[Tensor, "b h N N"]:
    """Keep the ⌈θN²⌉ largest entries of each image and head, zero the rest; no renormalisation.

    Equal entries at the threshold are kept by position, so that the result is the same on every
    device and in every batch.

    Source: GTP-ViT, section 3.4.
    """
    b, h, n, _ = attention.shape
    kept = kept_entries(n, theta, reference)
    if kept == n * n:
        return attention
    flat = attention.reshape(b, h, n * n)
    threshold = torch.kthvalue(flat.detach(), n * n - kept + 1, dim=-1, keepdim=True).values
    above = flat > threshold
    level = flat == threshold
    context = kept - above.sum(dim=-1, keepdim=True)
    keep = above | (level & (level.cumsum(dim=-1, dtype=torch.int32) <= context))
    return torch.where(keep, flat, 0.0).view_as(attention)
