"""From images to the tokens of the first block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.backbones.base import Backbone, Embedded
from tokenred.core.capture import fixed
from tokenred.core.errors import BackboneError, InputError
from tokenred.core.info import ModelInfo
from tokenred.core.replacing import replace
from tokenred.core.tensors import gather_tokens

__all__ = ["check_embedded", "check_finite", "embed"]


def check_finite(images: Float[Tensor, "b ch H W"]) -> None:
    """Refuse NaN and infinite values.

    Raises:
        InputError: with the images that hold them.
    """
    finite = torch.isfinite(images)
    if not bool(finite.all()):
        bad = (~finite).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise InputError(f"images {bad} of the batch hold NaN or infinite values. Check them.")


def check_embedded(embedded: Embedded, info: ModelInfo) -> None:
    """Refuse tokens that are neither of a patch nor of the prefix, such as prompts added to them.

    Raises:
        BackboneError: with the number of prefix tokens that would fit.
    """
    prefix = fixed(embedded.x.shape[1]) - fixed(embedded.index.shape[1])
    if prefix != info.num_prefix:
        raise BackboneError(
            f"{info.name}: expected {info.num_prefix} prefix tokens (num_prefix_tokens) before the "
            f"patches, got {prefix} from its embedding. Prompt tokens belong to the prefix: set "
            f"model.num_prefix_tokens = {prefix}, then wrap."
        )


def embed(
    backbone: Backbone,
    images: Float[Tensor, "b ch H W"],
    grid: tuple[int, int],
    more: Callable[..., Tensor] | None,
) -> Embedded:
    """The model's embedding, and what the method adds to it.

    Args:
        backbone: the adapter of the model.
        images: a batch.
        grid: ``(gh, gw)``.
        more: the method's `Embedding` as it runs, or None.
    """
    embedded = backbone.embed(images)
    if more is None:
        return embedded
    added = more(images, embedded.x0, grid)
    # Patch dropout may have left fewer tokens than the grid has.
    own = gather_tokens(added, embedded.index)
    front = embedded.x.shape[1] - own.shape[1]
    x = torch.cat((embedded.x[:, :front], embedded.x[:, front:] + own), dim=1)
    return replace(embedded, x=x, x0=embedded.x0 + added)
