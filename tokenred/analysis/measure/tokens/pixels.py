"""An image as a person sees it, from what a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["shown_pixels"]


def shown_pixels(image: Tensor, transform: Any) -> NDArray[np.float32]:
    """The image without its normalisation, resized and cropped as the transform did it.

    Args:
        image: ``(3, H, W)``, what the transform gave.
        transform: its last step with ``mean`` and ``std`` is undone; one without such a step, or
            without steps, gave pixels from 0 to 1.

    Returns:
        ``(H, W, 3)`` from 0 to 1.
    """
    image = image.float().cpu()
    for step in reversed(getattr(transform, "transforms", [])):
        if hasattr(step, "mean") and hasattr(step, "std"):
            mean, std = (torch.as_tensor(v, dtype=torch.float32) for v in (step.mean, step.std))
            image = image * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
            break
    pixels: NDArray[np.float32] = image.clamp(0, 1).permute(1, 2, 0).numpy()
    return pixels
