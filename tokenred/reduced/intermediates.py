"""timm's ``forward_intermediates`` for a model whose tokens get fewer on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenred.core.errors import ConfigError
from tokenred.core.part import check_choice
from tokenred.reduced.unreduce import FILLS

if TYPE_CHECKING:
    from tokenred.reduced.model import ReducedViT

__all__ = ["block_numbers", "check_no_mask", "forward_intermediates"]


def check_no_mask(attn_mask: Tensor | None, is_causal: bool) -> None:
    """Refuse timm's masks of attention.

    Raises:
        ConfigError: for any.
    """
    if isinstance(attn_mask, torch.fx.Proxy):
        return  # torch.fx fills in every argument, and is refused for the images
    if attn_mask is not None or is_causal:
        raise ConfigError(
            "a reduced model has no use for attn_mask and is_causal: tokens change places. "
            "Pass images only."
        )


def forward_intermediates(
    reduced: ReducedViT,
    images: Tensor,
    indices: int | Sequence[int] | None = None,
    return_prefix_tokens: bool = False,
    norm: bool = False,
    stop_early: bool = False,
    output_fmt: str = "NCHW",
    intermediates_only: bool = False,
    output_dict: bool = False,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    unreduce: bool = True,
    fill: str = "last",
) -> Any:
    """See `ReducedViT.forward_intermediates`."""
    check_choice(reduced, "output_fmt", output_fmt, ("NCHW", "NLC"))
    check_choice(reduced, "fill", fill, FILLS)
    if output_fmt == "NCHW" and not unreduce:
        raise ConfigError(
            "the tokens that are left make no NCHW map; pass output_fmt='NLC' with unreduce=False."
        )
    check_no_mask(attn_mask, is_causal)
    taken = block_numbers(indices, len(reduced.backbone.blocks))
    state, origins = reduced._run_noted(images, taken, max(taken) if stop_early else None, unreduce)
    kept = [origins.kept(layer, reduced.backbone.norm if norm else None) for layer in taken]
    if not unreduce:
        found = [tokens.tokens for tokens in kept]
    elif output_fmt == "NLC":
        found = [tokens.unreduce(fill) for tokens in kept]
    else:
        found = [tokens.dense(fill) for tokens in kept]
    prefixes = [tokens.prefix for tokens in kept]
    with_prefix = return_prefix_tokens and state.num_prefix > 0
    if output_dict:
        result: dict[str, Any] = {"image_intermediates": found}
        if with_prefix:
            result["image_intermediates_prefix"] = prefixes
        if not intermediates_only:
            result["image_features"] = reduced._features(state)
        return result
    listed: Any = list(zip(found, prefixes, strict=True)) if with_prefix else found
    return listed if intermediates_only else (reduced._features(state), listed)


def block_numbers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """The blocks that are meant, ascending, as timm returns them.

    Args:
        indices: the last so many, or numbers of blocks (negative from the end), or None for all.
        depth: how many blocks there are.

    Raises:
        ConfigError: for a block that does not exist, and for none at all.
    """
    if indices is None:
        return list(range(depth))
    if isinstance(indices, int):
        if not 0 < indices <= depth:
            raise ConfigError(f"the last {indices} blocks are asked for; the model has {depth}.")
        indices = range(depth - indices, depth)
    wrong = [i for i in indices if not -depth <= i < depth]
    if wrong or not indices:
        raise ConfigError(
            f"blocks {wrong or 'none'} are asked for; the model has blocks 0 to {depth - 1}."
        )
    return sorted({i % depth for i in indices})
