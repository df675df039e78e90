"""MSTM's second patch embedding."""

import math
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.strategies.base import Embedding, embeddings


@embeddings.register("multi_scale")
class MultiScale(Embedding):
    """Add patches of a multiple of the model's patch size, before any token is removed.

    The abstract of MSTM (Bian et al., arXiv 2306.04897) mentions multi-scale features; the
    implementation is our choice: a second patch embedding at ``factor`` times the stride, projected
    by a matrix that is initially zero, interpolated bilinearly to the model's grid and added to its
    tokens. A pre-trained model is unchanged at first, and fine-tuning learns what to add. An odd
    grid is padded with black on the right and below.

    Args:
        factor: number of the model's patches that a larger patch spans in each direction.
    """

    traits = Traits(needs_grid=True)

    factor: Annotated[int, Ge(2)] = 2

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        if info.patch_size is None:
            raise ConfigError(
                f"MultiScale embeds larger patches than the model's, but the patch size of "
                f"{info.name} is unknown. Use embedding='plain'."
            )

    def build(self, info: ModelInfo) -> nn.Module:
        assert info.patch_size is not None
        return SecondEmbedding(info.channels, info.width, info.patch_size, self.factor)

    def learned_macs(self, info: ModelInfo, counts: tuple[int, ...]) -> float:
        assert info.patch_size is not None
        assert info.grid is not None
        pixels = math.prod(info.patch_size) * self.factor**2
        places = math.prod(math.ceil(side / self.factor) for side in info.grid)
        return float(places * info.width * (info.channels * pixels + info.width))


class SecondEmbedding(nn.Module):
    """The weights of `MultiScale`."""

    def __init__(self, channels: int, width: int, patch: tuple[int, int], factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.patch = (patch[0] * factor, patch[1] * factor)
        self.embed = nn.Conv2d(channels, width, self.patch, stride=self.patch)
        self.project = nn.Linear(width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self,
        images: Float[Tensor, "b ch H W"],
        tokens: Float[Tensor, "b N0 c"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "b N0 c"]:
        """The term added to the tokens."""
        rows, columns = (math.ceil(side / self.factor) for side in grid)
        below = rows * self.patch[0] - images.shape[2]
        right = columns * self.patch[1] - images.shape[3]
        if below or right:
            images = F.pad(images, (0, right, 0, below))
        coarse = self.project(self.embed(images).flatten(2).transpose(1, 2))
        coarse = coarse.transpose(1, 2).unflatten(2, (rows, columns))
        full = (rows * self.factor, columns * self.factor)
        fine = F.interpolate(coarse, size=full, mode="bilinear", align_corners=False)
        return fine[:, :, : grid[0], : grid[1]].flatten(2).transpose(1, 2)
