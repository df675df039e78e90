"""Changes to the attention map, in this order: log s, masks, softmax, θ."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.stats import AttentionStat, AttentionStats
from tokenred.core.capture import fixed
from tokenred.core.part import Part
from tokenred.core.registry import KINDS, Registry
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32

SLACK = 0.01
"""How far the share of entries kept may be from θ with ``threshold="fast"``.

In maps so small that one or two entries exceed this, the exact number is kept.
"""


class ScoreMod(Part):
    """Changes the logits of a block's attention, like a mask, which needs the whole map.

    Or, with `changes_values`, the values alone, which any engine attends to. To write one: "A score
    mod" in "Write a part", docs/extending.md.

    Shapes:
        logits: ``(b, h, N, N)``, with ``log s`` already added; −∞ removes an entry.
    """

    def active(self, layer: int, depth: int) -> bool:
        """Whether the score mod acts in a block; other blocks keep their fast engine."""
        return True

    @property
    def in_training_only(self) -> bool:
        """Whether the score mod is part of a training form, and inactive at inference."""
        return False

    @property
    def changes_values(self) -> bool:
        """Whether `values` is called instead of the score mod itself."""
        return False

    def values(self, v: Float[Tensor, "b h N d"], state: TokenState) -> Float[Tensor, "b h N d"]:
        """The values to attend to."""
        return v

    @property
    def follows(self) -> bool:
        """Whether `follow` stores per-token values in ``state.memory``."""
        return False

    def requires(self, layer: int, depth: int) -> tuple[AttentionStat, ...]:
        """Statistics of a block's attention that `follow` reads."""
        return ()

    def follow(
        self, state: TokenState, attention: AttentionStats, selection: Selection | None
    ) -> TokenState:
        """Update what the score mod stores, in step with the tokens.

        Called after a block's attention, and also before the block if tokens are removed there.

        Args:
            state: after the reduction, if there was one.
            attention: the statistics of `requires`, for the tokens before the reduction.
            selection: the kept tokens; None if all were kept.
        """
        return state

    def __call__(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"]:
        """The edited logits; unchanged by default, for score mods with their own softmax."""
        return logits

    def normalize(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"] | None:
        """The map, if the score mod has its own softmax; None for the usual one."""
        return None


score_mods: Registry[ScoreMod] = KINDS["score_mods"]


def size_bias(size: Float[Tensor, "b N"]) -> Float[Tensor, "b N"]:
    """Proportional attention: ``log s`` for each key; a token of size 0 is masked (−∞).

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
    """The number of the N² entries of a map that are kept: ⌈θN²⌉.

    Args:
        tokens: ``N``, prefix included.
        theta: θ in (0, 1].
        reference: one more, as in the authors' code, which keeps every entry that is at least the
            k-th smallest with k = int(N²(1−θ)).
    """
    total = fixed(tokens) ** 2
    if reference:
        k = int(total * (1 - theta))
        return total if k < 1 else total - k + 1
    # The small number corrects for 0.07 · 100 = 7.000…1.
    return max(1, math.ceil(theta * total - 1e-6))


def slack_entries(total: int) -> int:
    """The number of entries by which a count may differ from `kept_entries` within `SLACK` of θ.

    ⌈θN²⌉ and the authors' count themselves differ from θ by up to two entries.
    """
    return max(0, int(SLACK * total) - 2)


def sparsify(
    attention: Float[Tensor, "b h N N"], theta: float, reference: bool = False
) -> Float[Tensor, "b h N N"]:
    """Keep the ⌈θN²⌉ largest entries of each image and head, zero the rest; no renormalisation.

    Ties at the threshold are broken by position, so that the result is the same on every device and
    in every batch.

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
