"""Tri-Level."""

from __future__ import annotations

from collections.abc import Sequence

from tokenred.core.plan import Strategy, recipes
from tokenred.strategies.edits.top_keys import TopKeys
from tokenred.strategies.recipes.topk import topk

__all__ = ["tri_level"]


@recipes.register("tri-level")
def tri_level(
    *,
    keep_rate: float | Sequence[float] = 0.7,
    attention_rate: float = 0.3,
    layers: Sequence[int] | None = None,
    reference: bool = False,
) -> Strategy:
    """Fewer tokens, and fewer entries in their attention (Tri-Level, Kong et al., AAAI 2023).

    EViT without its fused token, and a mask on the attention of the blocks after the first in
    which tokens go. The third level, fewer examples, is for training: see
    `tokenred.training.forgetting`. Without a CLS token the attention received decides, which is
    our choice.

    Args:
        keep_rate: share ρ of the living tokens kept; one, or one for each of `layers`.
        attention_rate: share of the image keys that each image token attends to.
        layers: blocks in which tokens go; None for the quarters of the depth (3, 6, 9 of 12).
        reference: nothing differs; accepted so that all recipes take it.
    """
    after = layers[0] if layers else None
    tokens = topk(keep_rate=keep_rate, layers=layers)
    return tokens.replace(edits=(TopKeys(attention_rate, after),))
