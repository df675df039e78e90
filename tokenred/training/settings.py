"""The settings of fine-tuning, as a frozen value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from typing_extensions import Self

from tokenred.core.errors import ConfigError
from tokenred.core.values import Count, Magnitude, Positive, Probability, Size, checked, read
from tokenred.training.losses import make_criterion

__all__ = ["Settings"]


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
        seed: of everything random.

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
