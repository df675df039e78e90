"""Feature maps for a decoder, like timm's ``features_only``, with fewer tokens inside."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tokenred.backbones import feature_info
from tokenred.core.part import check_choice
from tokenred.reduced.kept import FILLS
from tokenred.reduced.model import ReducedViT, block_numbers, check_maps
from tokenred.reduced.wrap import dense, wrap
from tokenred.strategies.specs import StrategyLike


class FeatureMaps(nn.Module):
    """Maps of several blocks for a decoder. Created by `features`.

    ``feature_info`` is timm's ``FeatureInfo``; an unknown stride is None.
    """

    def __init__(
        self, model: ReducedViT, out_indices: Sequence[int], feature_info: Any, **options: Any
    ) -> None:
        super().__init__()
        self.model, self.out_indices = model, tuple(out_indices)
        self.feature_info, self._options = feature_info, options

    def forward(self, images: Float[Tensor, "b ch H W"]) -> list[Tensor]:
        """One map for each of `out_indices`, ``(b, c, gh, gw)``, or ``(b, N0, c)`` for NLC.

        Smaller ones with ``unreduce=False``.
        """
        found: list[Tensor] = self.model.forward_intermediates(
            images, self.out_indices, stop_early=True, intermediates_only=True, **self._options
        )
        return found


def features(
    model: nn.Module,
    strategy: StrategyLike | None = None,
    out_indices: int | Sequence[int] = 3,
    *,
    norm: bool = False,
    output_fmt: str = "NCHW",
    fill: str = "last",
    prune: bool = False,
    unreduce: bool = True,
) -> FeatureMaps:
    """The maps of ``timm.create_model(name, features_only=True)``, with fewer tokens inside.

    Each patch has the feature of the token that owns it (`KeptTokens.unreduce`), so a decoder gets
    maps of the usual size. Blocks after the last requested one do not run.

    Args:
        model: a model that an adapter knows, or a `ReducedViT`.
        strategy: how tokens are reduced, as for `wrap`; None keeps a `ReducedViT`'s own, and all
            tokens of any other model.
        out_indices: blocks (negative ones count from the end), or how many of the last ones; timm's
            default.
        norm: apply the final norm to each map.
        output_fmt: ``"NCHW"``, or ``"NLC"`` for tokens in raster order.
        fill: for patches that no token owns, see `KeptTokens.unreduce`.
        prune: permanently remove the blocks and the head that these maps do not need, as timm does,
            so that every parameter has a gradient.
        unreduce: False for the remaining tokens as they are: smaller maps if they form a rectangle
            (CubistMerge), for a decoder of any size, or shorter sequences in ``"NLC"``.

    Raises:
        BackboneError: for a model that no adapter knows, or that cannot be pruned.
        ConfigError: for a block or a format that does not exist, and for smaller maps of tokens
            that form no rectangle.
    """
    if strategy is not None:
        reduced = wrap(model, strategy)
    else:
        reduced = model if isinstance(model, ReducedViT) else dense(model)
    check_choice(reduced, "output_fmt", output_fmt, ("NCHW", "NLC"))
    check_choice(reduced, "fill", fill, FILLS)
    blocks = block_numbers(out_indices, len(reduced.backbone.blocks))
    if output_fmt == "NCHW" and not unreduce:
        check_maps(reduced, blocks)
    if prune:
        reduced.prune_intermediate_layers(blocks, prune_norm=not norm)
    info = reduced.info if unreduce else replace(reduced.info, patch_size=None)
    if norm and reduced.backbone.neck is not None:
        info = replace(info, width=reduced.backbone.model.num_features)
    options = {"norm": norm, "output_fmt": output_fmt, "fill": fill, "unreduce": unreduce}
    return FeatureMaps(reduced, blocks, feature_info(info, blocks), **options)
