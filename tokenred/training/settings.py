"""How a model is fine-tuned, as a value; and what the papers of the methods used."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from typing_extensions import Self

from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.part import check_choice, check_count, check_number

__all__ = ["Settings"]

AMP = ("no", "bf16", "fp16")
CROPS = ("resized", "padded", "affine", "none")


@dataclass(frozen=True)
class Settings:
    """All that decides how a fine-tuning goes, apart from model, strategy and data.

    Args:
        epochs: passes through the training images, the last, smaller batch left out.
        batch_size: images in a step, over all processes.
        lr: of the first step after the warm-up.
        lr_per: where given, ``lr`` is for that batch size and grows with ``batch_size``.
        min_lr: at the end; scales as ``lr`` does not.
        warmup_epochs: in which the rate rises from ``warmup_lr``.
        optimizer, scheduler: timm's names.
        weight_decay: of matrices.
        clip_grad: largest norm of the gradient; None for no limit.
        backbone_lr: factor on the rate of all weights but the learned parts'.
        backbone_frozen: epochs in which only the learned parts change.
        frozen: names of parameters that never change, such as ``pos_embed``.
        criterion: of `tokenred.training.losses.make_criterion`.
        weights: of its terms, where they differ from the criterion's own; a mapping or pairs.
        teacher: whether the dense model as it was before teaches; see `finetune` for others.
        label_smoothing, mixup, cutmix: 0 for none.
        mix_probability, mix_switch: of mixing at all, and of CutMix where both are on.
        crop: ``"resized"`` (random resized crop), ``"padded"`` (random crop of the padded image),
            ``"affine"`` (small random rotation, shift, scale and shear) or ``"none"``.
        flip: probability of a mirrored image.
        auto_augment: as timm writes it, ``"rand-m9-mstd0.5-inc1"``; None for none.
        color_jitter: strength, where there is no ``auto_augment``.
        erasing: probability of random erasing.
        ema: decay of the averaged weights, which are then the result; None for no average.
        ema_warmup: let the decay rise from 0, for short runs.
        keep_warmup: (start, length) in epochs: nothing goes until ``start``, then the reduction
            rises along half a cosine to all of it after ``length`` more (EViT's). None for all at
            once.
        amp: ``"no"``, ``"bf16"`` or ``"fp16"``; the latter two need the extra ``train``.
        seed: of everything random.

    Raises:
        ConfigError: for a value outside its range.
    """

    epochs: int = 30
    batch_size: int = 256
    lr: float = 1e-5
    lr_per: int | None = None
    min_lr: float = 1e-6
    warmup_epochs: int = 0
    warmup_lr: float = 1e-6
    optimizer: str = "adamw"
    scheduler: str = "cosine"
    weight_decay: float = 0.05
    clip_grad: float | None = None
    backbone_lr: float = 1.0
    backbone_frozen: int = 0
    frozen: tuple[str, ...] = ()
    criterion: str = "ce"
    weights: tuple[tuple[str, Any], ...] = ()
    teacher: bool = False
    label_smoothing: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    mix_switch: float = 0.5
    crop: str = "resized"
    flip: float = 0.5
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.3
    erasing: float = 0.25
    ema: float | None = None
    ema_warmup: bool = False
    keep_warmup: tuple[int, int] | None = None
    amp: str = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.weights, Mapping):
            object.__setattr__(self, "weights", tuple(sorted(self.weights.items())))
        for name in ("epochs", "batch_size"):
            check_count(self, name, getattr(self, name), low=1)
        for name in ("warmup_epochs", "backbone_frozen", "seed"):
            check_count(self, name, getattr(self, name))
        if self.lr_per is not None:
            check_count(self, "lr_per", self.lr_per, low=1)
        for name in ("lr", "clip_grad"):
            if (value := getattr(self, name)) is not None:
                check_number(self, name, value, low=0, high=math.inf, open_low=True)
        for name in ("min_lr", "warmup_lr", "weight_decay", "backbone_lr", "mixup", "cutmix"):
            check_number(self, name, getattr(self, name), low=0, high=math.inf)
        shares = ("label_smoothing", "mix_probability", "mix_switch", "flip", "color_jitter")
        for name in (*shares, "erasing", *(("ema",) if self.ema is not None else ())):
            check_number(self, name, getattr(self, name), low=0, high=1)
        check_choice(self, "crop", self.crop, CROPS)
        check_choice(self, "amp", self.amp, AMP)
        if self.keep_warmup is not None:
            object.__setattr__(self, "keep_warmup", tuple(self.keep_warmup))
            if len(self.keep_warmup) != 2:
                raise ConfigError(
                    f"expected keep_warmup as (start, length), got {self.keep_warmup!r}."
                )
            for value in self.keep_warmup:
                check_count(self, "keep_warmup", value)
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ConfigError(
                f"expected fewer warm-up epochs than the {self.epochs} in all, got "
                f"{self.warmup_epochs}; set warmup_epochs too."
            )

    @property
    def full_lr(self) -> float:
        """The rate for this batch size."""
        return self.lr if self.lr_per is None else self.lr * self.batch_size / self.lr_per

    @property
    def mixes(self) -> bool:
        """Whether images are blended."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_probability > 0

    def replace(self, **changes: Any) -> Self:
        """The same with other values.

        Raises:
            UnknownNameError: for a field that there is not.
            ConfigError: for a value outside its range.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownNameError.of("training setting", name, known)
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Names and plain values, for a log or a checkpoint."""
        plain: dict[str, Any] = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
