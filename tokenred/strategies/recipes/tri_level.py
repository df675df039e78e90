"""Tri-Level."""

from __future__ import annotations

from tokenred.core.values import Blocks, Magnitude, Share, Shares
from tokenred.strategies.recipes.topk import topk
from tokenred.strategies.score_mods.top_keys import TopKeys
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("tri-level")
def tri_level(
    *,
    keep_rate: Share | Shares = 0.7,
    attention_rate: Share = 0.3,
    layers: Blocks | None = None,
    epsilon: Magnitude | None = None,
    reference: bool = False,
) -> Strategy:
    """Fewer tokens, and fewer entries in their attention (Tri-Level, Kong et al., AAAI 2023).

    EViT without its fused token, and a mask on the attention of the blocks after one in which
    tokens go, made there and held until the next (`TopKeys`). The third level, fewer training
    examples, is not here. Without a CLS token the attention received decides, which is our choice.

    Args:
        keep_rate: share ρ of the living tokens kept; one, or one for each of `layers`.
        attention_rate: share of the image keys that each image token attends to.
        layers: blocks in which tokens go; None for the quarters of the depth (3, 6, 9 of 12).
        epsilon: ε of the masked attention; None for 0, and for the program's 1e-6.
        reference: as the authors' program: ε in all blocks, and entries that equal the last one
            kept stay too, so that a row which the mask before left few entries opens entirely.
    """
    tokens = topk(keep_rate=keep_rate, layers=layers)
    if epsilon is None:
        epsilon = 1e-6 if reference else 0.0
    return tokens.replace(score_mods=(TopKeys(attention_rate, layers, epsilon, reference),))
