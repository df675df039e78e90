"""DiffRate."""

from typing import Literal

from tokenred.core.errors import ConfigError
from tokenred.core.values import Sizes
from tokenred.strategies.schedules.keep_count import KeepCount
from tokenred.strategies.selectors.importance_order import ImportanceOrder
from tokenred.strategies.strategy import Strategy, recipes

# Learned lists, tokens with CLS, for 196 patches (README of the authors' code).
PRESETS = {
    "deit_s_2.9": (
        (197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3),
        (197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3),
    ),
    "deit_b_11.5": (
        (197, 197, 197, 188, 170, 154, 139, 123, 107, 72, 43, 3),
        (197, 197, 192, 178, 158, 145, 127, 111, 94, 50, 35, 3),
    ),
}


@recipes.register("diffrate")
def diffrate(
    *,
    prune_kept: Sizes | None = None,
    merge_kept: Sizes | None = None,
    preset: Literal["deit_s_2.9", "deit_b_11.5"] = "deit_s_2.9",
    reference: bool = False,
) -> Strategy:
    """Prune and merge at learned rates (DiffRate, Chen et al., ICCV 2023), at inference.

    Args:
        prune_kept, merge_kept: number of tokens, including CLS, that pruning and then merging leave
            in each block; a number above the existing tokens has no effect.
        preset: the authors' lists for DeiT-S at 2.9 GMACs or DeiT-B at 11.5, used if no lists are
            given; stretched and scaled for models of other depths and sizes.
        reference: no effect here; average pooling is unweighted either way.
    """
    if (prune_kept is None) != (merge_kept is None):
        raise ConfigError("diffrate needs both prune_kept and merge_kept, or neither.")
    made_for = None
    if prune_kept is None or merge_kept is None:
        (prune_kept, merge_kept), made_for = PRESETS[preset], 196
    elif len(prune_kept) != len(merge_kept) or min(*prune_kept, *merge_kept) < 2:
        raise ConfigError(
            "diffrate: prune_kept and merge_kept have one number for each block, of at least 2 "
            f"(CLS and one more), got {prune_kept} and {merge_kept}."
        )
    pruned = tuple(count - 1 for count in prune_kept)
    left = tuple(min(counts) - 1 for counts in zip(prune_kept, merge_kept, strict=True))
    return Strategy(
        scorer=ImportanceOrder(pruned, made_for),
        fuser="similar_mean",
        schedule=KeepCount(left, "all", made_for),
        proportional_attention=True,
    )
