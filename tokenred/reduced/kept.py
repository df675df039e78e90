"""The tokens that a reduced model keeps, and how to get from them back to the full grid."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenred.core.capture import replace
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.part import check_choice
from tokenred.core.tensors import as_map, gather_tokens

FILLS = ("last", "own", "nearest", "zero")
"""What a patch gets that no token owns, see `KeptTokens.unreduce`."""


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """Image tokens with their positions on the grid. Created by `ReducedViT.kept_tokens`.

    Shapes: ``b`` batch, ``p`` prefix tokens, ``n`` image tokens, ``N0 = gh·gw`` patches.

    Attributes:
        tokens: the image tokens.
        index: position of each on the grid, row by row from 0; −1 for padding and for a token that
            represents no single patch (a fused token).
        size: number of patches that each represents, as the method counts them; 1 if it does not
            count, 0 for padding.
        alive: False for padding (if the images of a batch keep different numbers of tokens) and, in
            training forms, for tokens that inference would have dropped. This is the mask for a
            language model.
        prefix: CLS, distillation and register tokens.
        grid: ``(gh, gw)`` of all patches.
        owner: for each patch, the token with the largest weight from it, −1 if there is none; None
            unless requested.
        left: for each patch, its own feature when its token was removed; None if nothing was
            recorded.
        token_grid: rows and columns of the tokens, which are then in raster order; None if they
            form no rectangle.
    """

    tokens: Float[Tensor, "b n c"]
    index: Int[Tensor, "b n"]
    size: Float[Tensor, "b n"]
    alive: Bool[Tensor, "b n"]
    prefix: Float[Tensor, "b p c"]
    grid: tuple[int, int]
    owner: Int[Tensor, "b N0"] | None = None
    left: Float[Tensor, "b N0 c"] | None = None
    token_grid: tuple[int, int] | None = None

    def __repr__(self) -> str:
        (b, n, c), p = self.tokens.shape, self.prefix.shape[1]
        rows, columns = self.grid
        return f"KeptTokens({n} of {rows}×{columns} image tokens, {p} prefix; b={b}, c={c})"

    @property
    def place(self) -> Int[Tensor, "b n 2"]:
        """Row and column of each token, (−1, −1) for one that represents no single patch."""
        row = torch.div(self.index, self.grid[1], rounding_mode="floor")
        place = torch.stack((row, self.index % self.grid[1]), dim=-1)
        return torch.where(self.index[..., None] >= 0, place, -1)

    def sorted(self) -> KeptTokens:
        """In raster order of `index`, then tokens that represent no single patch, then padding.

        A smaller rectangle of tokens (`token_grid`) is lost.
        """
        last = self.grid[0] * self.grid[1]
        key = torch.where(self.index >= 0, self.index, last)
        order = torch.where(self.alive, key, key + last + 1).argsort(dim=1, stable=True)
        owner = self.owner
        if owner is not None:
            now_at = order.argsort(dim=1)
            owner = torch.where(owner >= 0, now_at.gather(1, owner.clamp_min(0)), -1)
        return replace(
            self,
            tokens=gather_tokens(self.tokens, order),
            index=self.index.gather(1, order),
            size=self.size.gather(1, order),
            alive=self.alive.gather(1, order),
            owner=owner,
            token_grid=self.token_grid if self.token_grid == self.grid else None,
        )

    def unreduce(self, fill: str | None = None) -> Float[Tensor, "b N0 c"]:
        """Tokens on the full grid, in raster order: each patch gets the token that owns it.

        Without `owner`, a token owns only the patch at its own position.

        Args:
            fill: for patches that no token owns: ``"last"``, the patch's own feature when it left;
                ``"nearest"``, the token of the nearest patch that has one; ``"zero"``. Or
                ``"own"``: its own last feature for every patch whose token was removed, even if
                another token has absorbed it, so that no two patches share a feature. By default
                ``"last"`` if it was recorded, otherwise ``"nearest"``.

        Raises:
            ConfigError: for another ``fill``, and for features that were not recorded.
            InputError: for ``"last"`` and ``"own"`` with tokens of another width (a projector's).
        """
        if fill is None:
            fill = "nearest" if self.owner is None else "last"
        check_choice(self, "fill", fill, FILLS)
        if fill in ("last", "own") and self.owner is None:
            raise ConfigError(
                f"fill={fill!r} needs a record of the tokens that left. Ask for one, "
                "kept_tokens(images, owners=True), or use fill='nearest'."
            )
        return fill_grid(self.tokens, self.index, self.owner, self.grid, fill, self.left)

    def dense(
        self, fill: str | None = None, *, unreduce: bool = True
    ) -> Float[Tensor, "b c rows columns"]:
        """`unreduce` as a feature map for a convolutional decoder.

        With ``unreduce=False``, the remaining tokens as they are, on `token_grid`.

        Raises:
            ConfigError: if the tokens form no rectangle, and as `unreduce` does.
        """
        if unreduce:
            return as_map(self.unreduce(fill), self.grid)
        if self.token_grid is None:
            raise ConfigError(
                "the remaining tokens form no rectangle, and so no map. Use unreduce=True, or a "
                "method that keeps a rectangle, such as cubistmerge."
            )
        return as_map(self.tokens, self.token_grid)


# So that a graph of torch.export can return it.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # PyTorch 2.6 calls what it has deprecated
    torch.export.register_dataclass(KeptTokens, serialized_type_name="tokenred.KeptTokens")


def largest(weights: Float[Tensor, "b n N0"]) -> Int[Tensor, "b N0"]:
    """For each patch the token with the largest weight from it, −1 if nothing of it is left."""
    most, owner = weights.abs().max(dim=1)
    return torch.where(most > 0, owner, -1)


def fill_grid(
    tokens: Float[Tensor, "b n c"],
    index: Int[Tensor, "b n"],
    owner: Int[Tensor, "b N0"] | None,
    grid: tuple[int, int],
    fill: str,
    last: Float[Tensor, "b N0 c"] | None = None,
) -> Float[Tensor, "b N0 c"]:
    """`KeptTokens.unreduce`, with each patch's own feature when it was removed in ``last``."""
    if owner is None or fill == "own":
        owner = _own_places(index, grid[0] * grid[1])
    if fill == "nearest":
        owner = _nearest_owners(owner, grid)
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


def _nearest_owners(owner: Int[Tensor, "b N0"], grid: tuple[int, int]) -> Int[Tensor, "b N0"]:
    at = torch.arange(owner.shape[1], device=owner.device)
    place = torch.stack((at // grid[1], at % grid[1]), dim=-1).float()
    distance = torch.cdist(place, place)[None].masked_fill((owner < 0)[:, None, :], torch.inf)
    return owner.gather(1, distance.argmin(dim=-1))


def _own_places(index: Int[Tensor, "b n"], num_patches: int) -> Int[Tensor, "b N0"]:
    """For each position the token there, −1 if there is none."""
    b, n = index.shape
    # A spare place is for tokens without a position.
    at = torch.where(index >= 0, index, num_patches)
    token = torch.arange(n, device=index.device).expand(b, n)
    return index.new_full((b, num_patches + 1), -1).scatter(1, at, token)[:, :num_patches]


def features_left(
    left: Sequence[tuple[Float[Tensor, "b P c"], Int[Tensor, "b P"]]],
    num_patches: int,
    norm: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "b N0 c"] | None:
    """Normalised features of removed tokens at their positions; zeros elsewhere."""
    if not left:
        return None
    features = torch.cat([x if norm is None else norm(x) for x, _ in left], dim=1)
    index = torch.cat([index for _, index in left], dim=1)
    at = torch.where(index >= 0, index, num_patches)[..., None].expand_as(features)
    empty = features.new_zeros(features.shape[0], num_patches + 1, features.shape[2])
    return empty.scatter(1, at, features)[:, :num_patches]
