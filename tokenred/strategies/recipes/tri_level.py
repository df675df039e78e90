"""Tri-Level."""

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

    EViT without its fused token, and an attention mask that is computed in each block that removes
    tokens and applied until the next one (`TopKeys`). The third level, fewer training examples, is
    not implemented. Without a CLS token, the score is the attention received, which is our choice.

    Args:
        keep_rate: keep rate ρ relative to the remaining tokens; one, or one for each of `layers`.
        attention_rate: share of the image keys that each image token attends to.
        layers: blocks that remove tokens; None for the quarters of the depth (3, 6, 9 of 12).
        epsilon: ε of the masked attention; None for 0, and for the program's 1e-6.
        reference: follow the authors' code: ε in all blocks, and entries equal to the last kept one
            are kept too, so a row with few entries left by the previous mask is entirely unmasked.
    """
    tokens = topk(keep_rate=keep_rate, layers=layers)
    if epsilon is None:
        epsilon = 1e-6 if reference else 0.0
    return tokens.replace(score_mods=(TopKeys(attention_rate, layers, epsilon, reference),))
