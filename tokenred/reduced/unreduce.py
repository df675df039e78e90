"""From the tokens that are left back to the grid: each patch with the token that owns it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.errors import InputError
from tokenred.core.tensors import gather_tokens

__all__ = ["FILLS", "features_left", "fill_grid", "nearest_owners", "own_places"]

FILLS = ("last", "own", "nearest", "zero")
"""What a patch gets that no token owns: its own feature when it left, that of the nearest patch
that has a token, or zeros. ``"own"`` is ``"last"`` for every patch whose token went, whoever has
absorbed it."""


def fill_grid(
    tokens: Float[Tensor, "b n c"],
    index: Int[Tensor, "b n"],
    owner: Int[Tensor, "b N0"] | None,
    grid: tuple[int, int],
    fill: str,
    last: Float[Tensor, "b N0 c"] | None = None,
) -> Float[Tensor, "b N0 c"]:
    """Each patch's feature is that of its owner.

    Args:
        tokens: image tokens.
        index: their positions.
        owner: which of them has the patch, −1 for none; None for the token at its position.
        grid: ``(gh, gw)``.
        fill: one of `FILLS`.
        last: each patch's own feature when it left, for ``"last"`` and ``"own"``.

    Raises:
        InputError: where ``last`` is of another width than the tokens.
    """
    if owner is None or fill == "own":
        owner = own_places(index, grid[0] * grid[1])
    if fill == "nearest":
        owner = nearest_owners(owner, grid)
    out = gather_tokens(tokens, owner.clamp_min(0))
    rest = torch.zeros_like(out)
    if fill in ("last", "own") and last is not None:
        if last.shape[-1] != out.shape[-1]:
            raise InputError(
                f"fill={fill!r} puts features of width {last.shape[-1]} beside tokens of width "
                f"{out.shape[-1]}. Unreduce before projecting, or use fill='nearest'."
            )
        rest = last.to(out.dtype)
    return torch.where((owner >= 0)[..., None], out, rest)


def nearest_owners(owner: Int[Tensor, "b N0"], grid: tuple[int, int]) -> Int[Tensor, "b N0"]:
    """Owners for all: a patch without one takes that of the nearest patch that has one."""
    at = torch.arange(owner.shape[1], device=owner.device)
    place = torch.stack((at // grid[1], at % grid[1]), dim=-1).float()
    distance = torch.cdist(place, place)[None].masked_fill((owner < 0)[:, None, :], torch.inf)
    return owner.gather(1, distance.argmin(dim=-1))


def own_places(index: Int[Tensor, "b n"], num_patches: int) -> Int[Tensor, "b N0"]:
    """For each position the token that is at it, −1 where none is."""
    b, n = index.shape
    # A spare place takes the tokens that are nowhere.
    at = torch.where(index >= 0, index, num_patches)
    token = torch.arange(n, device=index.device).expand(b, n)
    return index.new_full((b, num_patches + 1), -1).scatter(1, at, token)[:, :num_patches]


def features_left(
    left: Sequence[tuple[Float[Tensor, "b P c"], Int[Tensor, "b P"]]],
    num_patches: int,
) -> Float[Tensor, "b N0 c"] | None:
    """Features of tokens that went, at the positions they had; zeros where none went.

    Args:
        left: features and positions, −1 for a token of no single patch; at least one entry, or the
            answer is None.
        num_patches: ``N0``.
    """
    if not left:
        return None
    features = torch.cat([feature for feature, _ in left], dim=1)
    index = torch.cat([index for _, index in left], dim=1)
    at = torch.where(index >= 0, index, num_patches)[..., None].expand_as(features)
    empty = features.new_zeros(features.shape[0], num_patches + 1, features.shape[2])
    return empty.scatter(1, at, features)[:, :num_patches]
