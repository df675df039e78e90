"""Random affine changes and mixing that keep a handwritten digit readable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["AffineRange", "mix", "random_affine"]


@dataclass(frozen=True)
class AffineRange:
    """How far an image may be moved; each value is the largest change in either direction.

    Attributes:
        degrees: rotation, in degrees.
        shift: shift along each axis, as a share of the side.
        scale: change of size, as a share of the size.
        shear: horizontal shear, in degrees.
    """

    degrees: float = 12.0
    shift: float = 0.09
    scale: float = 0.14
    shear: float = 10.0


def random_affine(images: Tensor, limits: AffineRange, generator: torch.Generator) -> Tensor:
    """Rotate, shear, scale and shift each image on its own.

    Args:
        images: (b, channels, height, width), 0 where the paper is empty.
        limits: how far.
        generator: where the random numbers come from.

    Returns:
        Images of the same shape; what comes in from outside is 0.
    """
    b = images.shape[0]
    draw = torch.rand(b, 5, generator=generator) * 2 - 1
    angle = draw[:, 0] * math.radians(limits.degrees)
    shear = torch.tan(draw[:, 1] * math.radians(limits.shear))
    zoom = 1 / (1 + draw[:, 2] * limits.scale)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.zeros(b, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = cos, cos * shear - sin
    matrix[:, 1, 0], matrix[:, 1, 1] = sin, sin * shear + cos
    # affine_grid measures in half sides.
    matrix[:, :, 2] = draw[:, 3:] * 2 * limits.shift
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def mix(
    images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend each image and its target with another of the batch (mixup, Zhang et al. 2018).

    Args:
        images: (b, channels, height, width).
        targets: (b, classes), each row sums to 1.
        alpha: of the Beta(alpha, alpha) that the share is drawn from; 0 for none.
        generator: where the random order comes from; the share is drawn from torch's own.

    Returns:
        The blended images and targets.
    """
    if alpha == 0:
        return images, targets
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(images.shape[0], generator=generator)
    return images.lerp(images[order], 1 - share), targets.lerp(targets[order], 1 - share)
