"""How the CIFAR-10 models are trained, as values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Literal

from typing_extensions import Self

from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.values import Count, Magnitude, Probability, Size, checked
from tokenred.data.cifar10 import CIFAR10_MEAN, CIFAR10_STD

__all__ = ["CIFAR10_PREPROCESSING", "CIFAR10_RECIPES", "Cifar10Recipe"]

CIFAR10_PREPROCESSING: Final[dict[str, Any]] = {
    "input_size": [3, 32, 32],
    "mean": list(CIFAR10_MEAN),
    "std": list(CIFAR10_STD),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}


@checked
@dataclass(frozen=True)
class Cifar10Recipe:
    """A plain ViT on 32x32 images, and its training from scratch or from weights.

    Args:
        patch, width, depth, heads: the model's.
        epochs: passes through the training images, the last, smaller batch left out.
        batch_size: images in a step.
        lr, min_lr: of AdamW after the warm-up, and at the end of the cosine.
        warmup_epochs: in which the rate rises from 0.
        weight_decay: of matrices.
        drop_path: stochastic depth.
        operations, magnitude: of RandAugment; 0 operations for none.
        erasing: probability of random erasing.
        mixup, cutmix: the parameter of their Beta distributions; 0 for none.
        label_smoothing: of the targets.
        ema: decay of the averaged weights, which are the result.
        clip: largest norm of the gradient.
        amp: ``"no"`` or ``"bf16"``.
        seed: of everything random.

    Raises:
        ConfigError: for a value outside its range.
    """

    patch: Size = 2
    width: Size = 192
    depth: Size = 12
    heads: Size = 3
    epochs: Size = 300
    batch_size: Size = 512
    lr: Magnitude = 1e-3
    min_lr: Magnitude = 1e-6
    warmup_epochs: Count = 10
    weight_decay: Magnitude = 0.05
    drop_path: Probability = 0.1
    operations: Count = 2
    magnitude: Count = 9
    erasing: Probability = 0.25
    mixup: Magnitude = 0.8
    cutmix: Magnitude = 1.0
    label_smoothing: Probability = 0.1
    ema: Probability = 0.9995
    clip: Magnitude = 1.0
    amp: Literal["no", "bf16"] = "bf16"
    seed: Count = 0

    def __post_init__(self) -> None:
        if self.batch_size % 2 or 32 % self.patch or self.width % self.heads:
            raise ConfigError(
                "expected an even batch size, a patch that divides 32 and a width that the heads "
                f"divide; got {self.batch_size}, {self.patch} and {self.width} / {self.heads}."
            )
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"expected fewer warm-up epochs than the {self.epochs} in all, got "
                f"{self.warmup_epochs}."
            )

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of timm's ``VisionTransformer``."""
        return {
            "img_size": 32,
            "patch_size": self.patch,
            "in_chans": 3,
            "num_classes": 10,
            "embed_dim": self.width,
            "depth": self.depth,
            "num_heads": self.heads,
            "mlp_ratio": 4.0,
        }

    def replace(self, **changes: Any) -> Self:
        """The same with other values.

        Raises:
            UnknownNameError: for a field that there is not.
            ConfigError: for a value outside its range.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownNameError.of("setting of the recipe", name, known)
        return dataclasses.replace(self, **changes)


CIFAR10_RECIPES: Final[dict[str, Cifar10Recipe]] = {
    # 256 image tokens and CLS, 5.4 M parameters: for a GPU.
    "patch2": Cifar10Recipe(),
    # 64 image tokens and CLS, 1.6 M parameters. A few epochs on a CPU from weights that are
    # trained already leave no room for strong augmentation.
    "patch4": Cifar10Recipe(
        patch=4, width=128, depth=8, heads=4, epochs=8, batch_size=128, lr=7e-4, warmup_epochs=0,
        drop_path=0.0, operations=0, erasing=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.05,
        ema=0.998, amp="no",
    ),
}  # fmt: skip
"""``patch2``, to be trained from scratch on a GPU, and ``patch4``, on a CPU."""
