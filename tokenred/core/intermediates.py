"""timm's ``forward_intermediates`` for a model whose tokens get fewer on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tokenred.backbones.base import Backbone
from tokenred.core.errors import ConfigError
from tokenred.core.part import check_choice
from tokenred.core.state import TokenState
from tokenred.core.trace import Trace

__all__ = ["forward_intermediates"]


def forward_intermediates(
    backbone: Backbone,
    run: Callable[[int | None], tuple[TokenState, Trace]],
    indices: int | Sequence[int] | None = None,
    return_prefix_tokens: bool = False,
    norm: bool = False,
    stop_early: bool = False,
    output_fmt: str = "NCHW",
    intermediates_only: bool = False,
    output_dict: bool = False,
    **masks: Any,
) -> Any:
    """See ``timm.models.VisionTransformer.forward_intermediates``; the same, argument by argument.

    ``"NCHW"`` puts each block's tokens back on the full grid (`Trace.unreduce`, patches that are
    gone by their last own feature); ``"NLC"`` gives the tokens of the block, fewer in each.

    Raises:
        ConfigError: for an unknown format, a block that does not exist, or a mask.
    """
    check_choice(backbone, "output_fmt", output_fmt, ("NCHW", "NLC"))
    if given := [name for name, mask in masks.items() if mask is not None and mask is not False]:
        raise ConfigError(
            f"forward_intermediates got {', '.join(given)}; a reduced model has no use for them: "
            "tokens change places. Pass images only."
        )
    depth = len(backbone.blocks)
    taken = _blocks(indices, depth)
    state, trace = run(max(taken) if stop_early else None)
    p, last_norm = trace.num_prefix, backbone.norm
    found, prefixes = [], []
    for layer in taken:
        tokens = last_norm(trace.features[layer]) if norm else trace.features[layer]
        prefixes.append(tokens[:, :p])
        image = tokens[:, p:]
        if output_fmt == "NCHW":
            image = trace.cut(layer).unreduce(image, norm=last_norm if norm else None)
            rows, columns = trace.grid
            image = image.transpose(1, 2).reshape(image.shape[0], -1, rows, columns).contiguous()
        found.append(image)
    if output_dict:
        result: dict[str, Any] = {"image_intermediates": found}
        if p and return_prefix_tokens:
            result["image_intermediates_prefix"] = prefixes
        if not intermediates_only:
            result["image_features"] = last_norm(state.x)
        return result
    listed: Any = found
    if p and return_prefix_tokens:
        listed = list(zip(found, prefixes, strict=True))
    return listed if intermediates_only else (last_norm(state.x), listed)


def _blocks(indices: int | Sequence[int] | None, depth: int) -> list[int]:
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
    # In the order of the blocks, as timm returns them.
    return sorted({i % depth for i in indices})
