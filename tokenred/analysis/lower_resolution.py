"""The dense model on smaller images."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenred.backbones import adapt
from tokenred.core.errors import BackboneError, InputError
from tokenred.reduced.cost import Cost
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import StrategyLike
from tokenred.strategies.strategy import Strategy

__all__ = ["LowerResolution", "smaller_sizes", "twin"]


class LowerResolution(ReducedViT):
    """The dense model for smaller images: it takes the full ones and resizes them itself.

    So it sees what the full model sees, only coarser, and the resizing is part of its time. Its
    position embedding is the model's, resampled as timm does it; all other weights are shared.

    Args:
        model: the dense model.
        size: (height, width) of the smaller images, such as one of `smaller_sizes`.

    Attributes:
        stands_for: the dense model.
        full_size, own_size: (height, width) of its images and of the smaller ones.

    Raises:
        BackboneError: for a model that cannot be had for another size.
    """

    stands_for: nn.Module

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        full_size = _image_size(model)
        small = twin(model)
        with torch.no_grad():
            small.set_input_size(img_size=size)  # type: ignore[operator]
        super().__init__(small, Strategy.dense())
        # Not as a submodule: it is somebody else's.
        self.__dict__["stands_for"] = model
        self.full_size, self.own_size = full_size, size
        self.prepare = self._resized
        wanted = (getattr(model, "pretrained_cfg", None) or {}).get("interpolation")
        self.interpolation = wanted if wanted in ("bilinear", "bicubic") else "bicubic"

    def _resized(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or not images.is_floating_point():
            return images  # the model says what is wrong with them
        self._check_size((images.shape[2], images.shape[3]))
        if tuple(images.shape[2:]) == self.own_size:
            return images
        # In single precision: not every device resizes half numbers.
        resized = F.interpolate(
            images.float(),
            self.own_size,
            mode=self.interpolation,
            align_corners=False,
            antialias=True,
        )
        return resized.to(images.dtype)

    def _check_size(self, given: tuple[int, int]) -> None:
        if given not in (self.full_size, self.own_size):
            full, own = _text(self.full_size), _text(self.own_size)
            raise InputError(f"images must be {full}, or {own} already, got {_text(given)}.")

    def with_strategy(self, strategy: StrategyLike) -> ReducedViT:
        """The model on the smaller images themselves, with fewer tokens."""
        return wrap(self.base, strategy)

    def cost(
        self, image_size: tuple[int, int] | None = None, alive: Sequence[int] | None = None
    ) -> Cost:
        """What one image costs at the lower resolution, the resizing left out.

        Args:
            image_size: the full size, the lower one, or None.
            alive: see `ReducedViT.cost`.

        Raises:
            InputError: for another size.
        """
        if image_size is not None:
            self._check_size((int(image_size[0]), int(image_size[1])))
        return super().cost(None, alive)

    def __repr__(self) -> str:
        sizes = f"{_text(self.own_size)} for {_text(self.full_size)}"
        return f"LowerResolution({self.info.name}, {sizes}, {self.cost().gmacs:.3f} GMACs)"


def twin(model: nn.Module) -> nn.Module:
    """Other modules around the very same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, dict(shared))


def smaller_sizes(model: nn.Module) -> list[tuple[int, int]]:
    """The sizes (height, width) below the model's own, in whole patches and about its shape.

    Returns:
        One for each length of the longer side, ascending.

    Raises:
        BackboneError: for a model that cannot be had for another size.
    """
    _image_size(model)
    grid = adapt(model).info.grid
    assert grid is not None
    rows, columns = model.patch_embed.feat_ratio(as_scalar=False)  # type: ignore[union-attr, operator]
    longer = max(grid)
    return [
        (
            max(1, round(grid[0] * side / longer)) * int(rows),
            max(1, round(grid[1] * side / longer)) * int(columns),
        )
        for side in range(1, longer)
    ]


def _image_size(model: nn.Module) -> tuple[int, int]:
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    able = hasattr(model, "set_input_size") and hasattr(embed, "feat_ratio")
    if size is None or not able or adapt(model).info.grid is None:
        raise BackboneError(
            f"expected a model that can be had for another image size, got {type(model).__name__}; "
            "it needs a size of its own and timm's set_input_size. Leave the resolution out."
        )
    return int(size[0]), int(size[1])


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
