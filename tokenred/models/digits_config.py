"""The digits model's shape and preprocessing, shared by its loader and its training."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["DIGITS_CONFIG", "DIGITS_PREPROCESSING", "DIGITS_WEIGHTS"]

DIGITS_WEIGHTS: Final = "digits_vit.safetensors"

DIGITS_CONFIG: Final[dict[str, Any]] = {
    "img_size": 32,
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 10,
    "embed_dim": 96,
    "depth": 8,
    "num_heads": 3,
    "mlp_ratio": 4.0,
}

# Mean and spread of the enlarged training pixels, the same in each channel.
DIGITS_PREPROCESSING: Final[dict[str, Any]] = {
    "input_size": [3, 32, 32],
    "mean": [0.3057, 0.3057, 0.3057],
    "std": [0.3235, 0.3235, 0.3235],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}
