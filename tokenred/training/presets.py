"""The training settings of the methods' papers, and replacements for small data sets."""

from __future__ import annotations

from typing import Any

from tokenred.core.errors import UnknownNameError
from tokenred.core.values import checked
from tokenred.strategies.routers import Idle
from tokenred.strategies.selectors.predictor import Predictor
from tokenred.strategies.strategy import Strategy, recipes
from tokenred.training.settings import Settings

__all__ = ["METHOD_SETTINGS", "PRESETS", "method_of", "settings_for"]

# DeiT's recipe; its augmentation is the default of Settings.
_GTP = Settings(epochs=30, batch_size=1024, lr=1e-5, min_lr=1e-6)

METHOD_SETTINGS: dict[str, Settings] = {
    "gtp": _GTP,
    # The authors' finetune.sh: 8 processes of 128 images, DeiT's scaling of the rate.
    "evit": _GTP.replace(lr=2e-5, lr_per=512, min_lr=2e-6, weight_decay=1e-6),
    # From scratch, as DeiT, with the keep rate warmed up.
    "evit-scratch": _GTP.replace(
        epochs=300, lr=5e-4, lr_per=512, min_lr=1e-5, warmup_epochs=5, keep_warmup=(10, 100)
    ),
    # The authors' README and main.py: 8 processes of 128 images.
    "dynamicvit": _GTP.replace(
        lr=1e-3,
        warmup_epochs=5,
        warmup_lr=0.0,
        backbone_lr=0.01,
        backbone_frozen=5,
        frozen=("pos_embed", "cls_token"),
        ema=0.9999,
        criterion="dynamicvit",
        teacher=True,
    ),
    "idlevit": _GTP.replace(
        lr_per=512,
        ema=0.99996,
        frozen=("pos_embed", "cls_token"),
        criterion="idlevit",
        teacher=True,
    ),
}
"""By method: GTP-ViT, EViT, DynamicViT and IdleViT as published.

Where a paper leaves a setting open, DeiT's is
used: RandAugment, Mixup 0.8, CutMix 1, erasing 0.25, smoothing 0.1.
"""

_SMALL: dict[str, Any] = {
    "lr_per": None,
    "min_lr": 1e-6,
    "warmup_epochs": 0,
    "warmup_lr": 1e-6,
    "backbone_lr": 1.0,
    "backbone_frozen": 0,
    "frozen": (),
    "erasing": 0.0,
    "cutmix": 0.0,
    "ema_warmup": True,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Handwriting is neither flipped nor cropped; a few hundred steps need short averages.
    "digits": _SMALL
    | {
        "epochs": 10,
        "batch_size": 96,
        "lr": 3e-4,
        "weight_decay": 0.05,
        "label_smoothing": 0.05,
        "mixup": 0.2,
        "crop": "affine",
        "flip": 0.0,
        "auto_augment": None,
        "color_jitter": 0.0,
        "ema": 0.99,
    },
    "cifar10": _SMALL
    | {
        "epochs": 30,
        "batch_size": 128,
        "lr": 2e-4,
        "crop": "padded",
        "auto_augment": "rand-m7-mstd0.5-inc1",
        "mixup": 0.4,
        "ema": 0.999,
    },
}
"""Replacements for a method's settings on small data; our own choice."""

# Predictors must learn in a few hundred steps what takes 37,000 in the paper, and meet the ratio.
# They do with the recipe's gradient_limit=0.02; without it, no weight of the ratio loss worked.
_PRESETS_OF: dict[tuple[str, str], dict[str, Any]] = {
    ("dynamicvit", "digits"): {"lr": 3e-3, "backbone_lr": 0.1, "weights": {"ratio": 20.0}},
}


@checked
def settings_for(method: str, preset: str | None = None) -> Settings:
    """Return the training settings of a method.

    Args:
        method: a key of `METHOD_SETTINGS`; any other recipe gets GTP's settings.
        preset: ``"digits"`` or ``"cifar10"``, for small images and models.

    Raises:
        UnknownNameError: if the name is unknown.
    """
    name = method.casefold()
    if name not in METHOD_SETTINGS and name not in recipes:
        raise UnknownNameError.of("method", method, {*METHOD_SETTINGS, *recipes.names()})
    settings = METHOD_SETTINGS.get(name, _GTP)
    if preset is None:
        return settings
    if preset not in PRESETS:
        raise UnknownNameError.of("training preset", preset, PRESETS)
    return settings.replace(**PRESETS[preset] | _PRESETS_OF.get((name, preset), {}))


def method_of(strategy: Strategy) -> str:
    """The method whose settings a strategy needs, judged by its learned parts."""
    if isinstance(strategy.router, Idle):
        return "idlevit"
    return "dynamicvit" if isinstance(strategy.selector, Predictor) else "gtp"
