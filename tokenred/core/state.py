"""The tokens between blocks, and the selection of tokens in a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenred.core.capture import fixed, replace
from tokenred.core.tensors import gather_tokens


@dataclass(frozen=True, eq=False)
class TokenState:
    """The state of one batch between blocks; update it with ``dataclasses.replace``.

    Shapes: ``b`` batch, ``p`` prefix tokens, ``n`` remaining image tokens, ``N = p + n``.

    Attributes:
        x: tokens, prefix first.
        index: position of each image token on the original grid; −1 for a token that represents no
            single patch.
        num_prefix: ``p``; prefix tokens are never scored and never fused.
        grid: ``(gh, gw)`` of the original image tokens.
        token_grid: rows and columns of the remaining ones, in raster order; None where they form no
            rectangle.
        size: number of patches each token represents, or None if no part needs it; a token of size
            0 is padding, which the attention masks.
        graph: the token graph over the original positions (`tokenred.Graph`), or None.
        cls_index: index of the class token among the prefix tokens, or None.
        layer: number of the block, from 0.
        depth: number of blocks.
        memory: values that a method carries between blocks, under its own keys.
        positions: position data that the model's blocks need (rotary tables), from
            `Backbone.embed`; constant over the blocks, parts pass it on.
    """

    x: Float[Tensor, "b N c"]
    index: Int[Tensor, "b n"]
    num_prefix: int
    grid: tuple[int, int]
    size: Float[Tensor, "b N"] | None = None
    graph: Any = None
    cls_index: int | None = None
    layer: int = 0
    depth: int = 12
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    positions: Any = None
    token_grid: tuple[int, int] | None = None

    @property
    def num_tokens(self) -> int:
        """Remaining image tokens ``n``."""
        return fixed(self.x.shape[1]) - self.num_prefix

    @property
    def num_patches(self) -> int:
        """Image tokens at the start, ``N0``."""
        return self.grid[0] * self.grid[1]

    @property
    def image(self) -> Float[Tensor, "b n c"]:
        """The image tokens."""
        return self.x[:, self.num_prefix :]

    @property
    def prefix(self) -> Float[Tensor, "b p c"]:
        """The prefix tokens."""
        return self.x[:, : self.num_prefix]

    def places(self, image: Int[Tensor, "b k"]) -> Int[Tensor, "b q"]:
        """Where the prefix and some image tokens stand in `x`, prefix first."""
        if self.num_prefix < 2:
            return F.pad(image + 1, (1, 0)) if self.num_prefix else image
        first = torch.arange(self.num_prefix, device=image.device)
        return torch.cat((first.expand(image.shape[0], -1), image + self.num_prefix), dim=1)

    def take(self, image: Int[Tensor, "b k"]) -> TokenState:
        """The state with the prefix and these image tokens alone."""
        places = self.places(image)
        return replace(
            self,
            x=gather_tokens(self.x, places),
            index=self.index.gather(1, image),
            size=None if self.size is None else self.size.gather(1, places),
            token_grid=None,
        )

    @property
    def image_size(self) -> Float[Tensor, "b n"] | None:
        """The sizes of the image tokens."""
        return None if self.size is None else self.size[:, self.num_prefix :]


@dataclass(frozen=True, eq=False)
class Selection:
    """The image tokens to keep and to remove, as indices into the remaining ones (0 … n−1).

    Attributes:
        keep: indices to keep, in their new order.
        drop: indices to remove.
        partner: for each removed token, the index of the kept token that it is assigned to; −1 if
            it joins none.
        slot: the place of that kept token in ``keep``, where the selector knows it.
        score: the scores of all remaining tokens.
        weight: non-negative weight of each token in a mean, if the selector provides one; otherwise
            the fuser has its own.
        alive: which entries of `keep` are tokens, if images keep different numbers; the others are
            padding.
        gone: the same for `drop`.
    """

    keep: Int[Tensor, "b k"]
    drop: Int[Tensor, "b P"]
    partner: Int[Tensor, "b P"] | None = None
    score: Float[Tensor, "b n"] | None = None
    weight: Float[Tensor, "b n"] | None = None
    alive: Bool[Tensor, "b k"] | None = None
    gone: Bool[Tensor, "b P"] | None = None
    slot: Int[Tensor, "b P"] | None = None
