"""How close the features of a reduced model stay to the dense model's, without labels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tokenred.core.errors import InputError
from tokenred.core.tensors import at_least_fp32
from tokenred.reduced.kept import KeptTokens


def feature_fidelity(found: KeptTokens, wanted: KeptTokens) -> dict[str, Float[Tensor, " b"]]:
    """Cosine similarities of features, image by image.

    Args:
        found: of the reduced model, ``kept_tokens(images, owners=True)``.
        wanted: of the dense model on the same images, ``tr.wrap(model, tr.Strategy.dense())``.

    Returns:
        ``cls``: of the first prefix token (absent without one); ``mean``: of the mean image token,
        each token counted as often as it stands for patches; ``patches``: the mean over the patches
        of the grid, see `KeptTokens.unreduce`.

    Raises:
        InputError: for another number of images or patches.
    """
    if found.grid != wanted.grid or len(found.tokens) != len(wanted.tokens):
        raise InputError(
            f"expected features of the same images, got {len(found.tokens)} of a grid "
            f"{found.grid} and {len(wanted.tokens)} of {wanted.grid}."
        )
    both = {"mean": (_mean(found), _mean(wanted)), "patches": (found.unreduce(), wanted.unreduce())}
    if wanted.prefix.shape[1]:
        both = {"cls": (found.prefix[:, 0], wanted.prefix[:, 0])} | both
    close = {name: cosine_similarity(a.float(), b.float(), dim=-1) for name, (a, b) in both.items()}
    return close | {"patches": close["patches"].mean(dim=1)}


def _mean(kept: KeptTokens) -> Float[Tensor, "b c"]:
    share = kept.size / kept.size.sum(dim=1, keepdim=True)
    return torch.einsum("bn,bnc->bc", share.to(kept.tokens.dtype), kept.tokens)


def map_fidelity(
    found: Float[Tensor, "b *map"], wanted: Float[Tensor, "b *map"]
) -> dict[str, Float[Tensor, " b"]]:
    """How close maps for a dense task are to those from the dense model, image by image.

    Args:
        found: one map an image, such as a decoder's saliency or depth from unreduced features.
        wanted: those from the dense model's features.

    Returns:
        ``correlation``: Pearson's, over the places of a map; NaN where a map is constant.
        ``error``: the mean absolute difference. ``iou``: intersection over union of the areas in
        which each map exceeds its own mean; NaN where both are empty.

    Raises:
        InputError: for maps of different shapes, or of a single place.
    """
    if found.shape != wanted.shape or found.ndim < 2 or found[0].numel() < 2:
        raise InputError(
            f"expected two sets of maps (b, …) of one shape, got {tuple(found.shape)} and "
            f"{tuple(wanted.shape)}."
        )
    dtype = at_least_fp32(found.dtype)
    a, b = (maps.detach().flatten(1).to(dtype) for maps in (found, wanted))
    error = (a - b).abs().mean(dim=1)
    a, b = (maps - maps.mean(dim=1, keepdim=True) for maps in (a, b))
    scale = a.square().sum(dim=1).sqrt() * b.square().sum(dim=1).sqrt()
    both, either = ((a > 0) & (b > 0)).sum(dim=1), ((a > 0) | (b > 0)).sum(dim=1)
    return {"correlation": (a * b).sum(dim=1) / scale, "error": error, "iou": both / either}
