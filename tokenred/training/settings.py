"""Settings of fine-tuning: a frozen dataclass, the papers' values, and those for small data."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from typing_extensions import Self

from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.part import Part
from tokenred.core.values import Count, Magnitude, Positive, Probability, Size, checked, read
from tokenred.strategies.fusers import RegionMeans
from tokenred.strategies.fusers.soft import SoftFuser
from tokenred.strategies.routers import Idle
from tokenred.strategies.selectors import DensityPeaks, Medoids, MultiCriteria, Predictor
from tokenred.strategies.strategy import Strategy, recipes
from tokenred.training.losses import make_criterion


@checked
@dataclass(frozen=True)
class Settings:
    """Everything that determines fine-tuning, apart from model, strategy and data.

    Args:
        epochs: passes through the training images; an incomplete last batch is dropped.
        batch_size: images per step, over all processes.
        lr: learning rate of the first step after the warm-up.
        lr_per: if given, the batch size that ``lr`` refers to; the rate scales with ``batch_size``.
        min_lr: learning rate at the end; it does not scale with the batch size.
        warmup_epochs: epochs in which the learning rate rises from ``warmup_lr``.
        optimizer, scheduler: timm's names.
        weight_decay: applied to matrices only.
        clip_grad: maximum norm of the gradient; None for no limit.
        backbone_lr: learning rate factor for all weights except the learned parts.
        backbone_frozen: epochs in which only the learned parts change.
        frozen: names of parameters that never change, such as ``pos_embed``.
        criterion: of `tokenred.training.losses.make_criterion`.
        weights: weights of its terms that differ from the criterion's defaults; a mapping or pairs.
        teacher: whether the dense model before training is the teacher; see `finetune` for others.
        label_smoothing, mixup, cutmix: 0 for none.
        mix_probability, mix_switch: probability of mixing, and of CutMix if both are on.
        crop: ``"resized"`` (random resized crop), ``"padded"`` (random crop of the padded image),
            ``"affine"`` (small random rotation, shift, scale and shear) or ``"none"``.
        flip: probability of a mirrored image.
        auto_augment: in timm's format, such as ``"rand-m9-mstd0.5-inc1"``; None for none.
        color_jitter: strength; used only without ``auto_augment``.
        erasing: probability of random erasing.
        ema: decay of the weight average, which is then the result; None for no average.
        ema_warmup: let the decay rise from 0, for short runs.
        keep_warmup: (start, length) in epochs: nothing is removed until ``start``, then the
            reduction rises along half a cosine to its full amount over ``length`` epochs (as in
            EViT). None for the full reduction from the start.
        amp: ``"no"``, ``"bf16"`` or ``"fp16"``; the latter two need the extra ``train``.
        seed: for everything random.

    Raises:
        ConfigError: if a value is out of range.
    """

    epochs: Size = 30
    batch_size: Size = 256
    lr: Positive = 1e-5
    lr_per: Size | None = None
    min_lr: Magnitude = 1e-6
    warmup_epochs: Count = 0
    warmup_lr: Magnitude = 1e-6
    optimizer: str = "adamw"
    scheduler: str = "cosine"
    weight_decay: Magnitude = 0.05
    clip_grad: Positive | None = None
    backbone_lr: Magnitude = 1.0
    backbone_frozen: Count = 0
    frozen: tuple[str, ...] = ()
    criterion: str = "ce"
    weights: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
    teacher: bool = False
    label_smoothing: Probability = 0.1
    mixup: Magnitude = 0.8
    cutmix: Magnitude = 1.0
    mix_probability: Probability = 1.0
    mix_switch: Probability = 0.5
    crop: Literal["resized", "padded", "affine", "none"] = "resized"
    flip: Probability = 0.5
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: Probability = 0.3
    erasing: Probability = 0.25
    ema: Probability | None = None
    ema_warmup: bool = False
    keep_warmup: tuple[Count, Count] | None = None
    amp: Literal["no", "bf16", "fp16"] = "no"
    seed: Count = 0

    def __post_init__(self) -> None:
        weights = self.weights
        pairs = tuple(weights.items()) if isinstance(weights, Mapping) else weights
        given = dict(read(tuple[tuple[str, Any], ...], pairs, "Settings: weights"))
        criterion = make_criterion(self.criterion, **given)
        plain = tuple((name, getattr(criterion, name)) for name in sorted(given))
        object.__setattr__(self, "weights", plain)
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ConfigError(
                f"expected fewer warm-up epochs than the total of {self.epochs}, got "
                f"{self.warmup_epochs}; set warmup_epochs too."
            )

    @property
    def full_lr(self) -> float:
        """The learning rate for this batch size."""
        return self.lr if self.lr_per is None else self.lr * self.batch_size / self.lr_per

    @property
    def mixes(self) -> bool:
        """Whether images are blended."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_probability > 0

    def replace(self, **changes: Any) -> Self:
        """The same with other values.

        Raises:
            UnknownNameError: if there is no such field.
            ConfigError: if a value is out of range.
        """
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Names and plain values, for a log or a checkpoint."""
        plain: dict[str, Any] = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


# ---------------------------------------------------------------- of the papers

# DeiT's recipe; its augmentation is the default of Settings.
_GTP = Settings(epochs=30, batch_size=1024, lr=1e-5, min_lr=1e-6)

# Haurum et al. (ICCVW 2023): from DeiT, one rate for all.
_HAURUM = _GTP.replace(lr=1e-3, warmup_epochs=20)

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
        lr=1e-3, warmup_epochs=5, warmup_lr=0.0, backbone_lr=0.01, backbone_frozen=5,
        frozen=("pos_embed", "cls_token"), ema=0.9999, criterion="dynamicvit", teacher=True,
    ),
    "idlevit": _GTP.replace(
        lr_per=512, ema=0.99996, frozen=("pos_embed", "cls_token"), criterion="idlevit",
        teacher=True,
    ),
    **dict.fromkeys(("dpcknn", "kmedoids", "sinkhorn", "patchmerger", "sit"), _HAURUM),
    # The authors' README and main.py: 8 processes of 128 images, no mixing.
    "mctf": _GTP.replace(lr=1.5e-5, lr_per=512, mixup=0.0, cutmix=0.0, criterion="mctf"),
    # Self-distillation; the weight of its term is not printed.
    "frequency": _GTP.replace(
        lr=1e-4, weight_decay=2e-5, ema=0.9998, criterion="evit", teacher=True
    ),
}  # fmt: skip
"""By method: GTP-ViT, EViT, DynamicViT, IdleViT, the learned ones of Haurum et al., MCTF and
frequency-aware reduction as published.

Where a paper leaves a setting open, DeiT's is used: RandAugment, Mixup 0.8, CutMix 1, erasing 0.25,
smoothing 0.1.
"""

_SMALL: dict[str, Any] = {
    "lr_per": None, "min_lr": 1e-6, "warmup_epochs": 0, "warmup_lr": 1e-6, "backbone_lr": 1.0,
    "backbone_frozen": 0, "frozen": (), "erasing": 0.0, "cutmix": 0.0, "ema_warmup": True,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    # Handwriting is neither flipped nor cropped; a few hundred steps need short averages.
    "digits": _SMALL
    | {
        "epochs": 10, "batch_size": 96, "lr": 3e-4, "weight_decay": 0.05, "label_smoothing": 0.05,
        "mixup": 0.2, "crop": "affine", "flip": 0.0, "auto_augment": None, "color_jitter": 0.0,
        "ema": 0.99,
    },
    "cifar10": _SMALL
    | {
        "epochs": 30, "batch_size": 128, "lr": 2e-4, "crop": "padded", "mixup": 0.4, "ema": 0.999,
        "auto_augment": "rand-m7-mstd0.5-inc1",
    },
}  # fmt: skip
"""Replacements for a method's settings on small data; our own choice."""

# Predictors must learn in a few hundred steps what takes 37,000 in the paper, and meet the ratio.
# They do with the recipe's gradient_limit=0.02; without it, no weight of the ratio loss worked.
_PRESETS_OF: dict[tuple[str, str], dict[str, Any]] = {
    ("dynamicvit", "digits"): {"lr": 3e-3, "backbone_lr": 0.1, "weights": {"ratio": 20.0}}
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


_CIFAR10 = re.compile(r"cifar[-_]?10(?!0)")


def preset_of(model: str, data: str) -> str | None:
    """The preset for small images that fits a data set, or else a model, by their names.

    Args:
        model: as for `tokenred.models.load_model`; the bundled ones have presets.
        data: as for `tokenred.data.open_dataset`; a path counts as CIFAR-10 if it says so.
    """
    source = "cifar10" if _CIFAR10.search(data.casefold()) else data.casefold()
    names = (source, model.casefold().removesuffix("_vit"))
    return next((name for name in names if name in PRESETS), None)


_METHOD_OF: dict[type[Part], str] = {
    Idle: "idlevit", Predictor: "dynamicvit", MultiCriteria: "mctf", DensityPeaks: "dpcknn",
    Medoids: "kmedoids", SoftFuser: "sinkhorn", RegionMeans: "frequency",
}  # fmt: skip


def method_of(strategy: Strategy) -> str:
    """The method whose settings a strategy needs, judged by its parts."""
    parts = (strategy.router, strategy.selector, strategy.fuser)
    found = (name for kind, name in _METHOD_OF.items() if any(isinstance(p, kind) for p in parts))
    return next(found, "gtp")
