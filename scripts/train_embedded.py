"""Train the weights that come with the package: ``digits``, and ``cifar10_vit`` as ``patch4``.

For maintainers; users get the weights. Trains plain ViTs, from scratch or from earlier weights, by
`tokenred.training.finetune` with nothing removed. ``patch2`` (256 image tokens and CLS) is meant
for a GPU. A killed run continues with ``--resume``.

Test images choose nothing: the result is the averaged model after the last epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tokenred.core.files import check_output
from tokenred.core.notation import read_assignment
from tokenred.core.tensors import state_digest
from tokenred.data import CIFAR10_MEAN, CIFAR10_STD
from tokenred.models.checkpoint_file import (
    SAFE_SUFFIX,
    load_strictly,
    read_checkpoint,
    save_checkpoint,
)
from tokenred.training import Settings, finetune

DIGITS_CONFIG: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 10,
    "embed_dim": 96,
    "depth": 8,
    "num_heads": 3,
    "mlp_ratio": 4.0,
}
# Mean and standard deviation of the enlarged training pixels, the same in each channel.
DIGITS_PREPROCESSING: dict[str, Any] = {
    "input_size": [3, 32, 32],
    "mean": [0.3057, 0.3057, 0.3057],
    "std": [0.3235, 0.3235, 0.3235],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}
CIFAR10_PREPROCESSING: dict[str, Any] = {
    "input_size": [3, 32, 32],
    "mean": list(CIFAR10_MEAN),
    "std": list(CIFAR10_STD),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}


@dataclass(frozen=True)
class Recipe:
    """A plain ViT for 32x32 images, and its training.

    Attributes:
        config: arguments of timm's ``VisionTransformer``.
        preprocessing: entries of ``pretrained_cfg``.
        data: the prefix of a path for `tokenred.data.open_dataset`.
        settings: settings of the training.
        drop_path: stochastic depth.
    """

    config: dict[str, Any]
    preprocessing: dict[str, Any]
    data: str
    settings: Settings
    drop_path: float = 0.0


def _cifar10(patch: int, width: int, depth: int, heads: int) -> dict[str, Any]:
    shape = {"patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads}
    return DIGITS_CONFIG | shape


# With few steps, or from trained weights, strong augmentation does not pay off.
_LIGHT = Settings(
    clip_grad=1.0, label_smoothing=0.05, mixup=0.0, cutmix=0.0, auto_augment=None,
    color_jitter=0.0, erasing=0.0, ema_warmup=True,
)  # fmt: skip

RECIPES = {
    # 64 image tokens and CLS, 0.9 M parameters. Handwriting is neither flipped nor cropped. The
    # settings were chosen on held-out sixths of the train split.
    "digits": Recipe(
        DIGITS_CONFIG,
        DIGITS_PREPROCESSING,
        "digits",
        _LIGHT.replace(
            epochs=120, batch_size=96, lr=1.5e-3, min_lr=1.5e-5, warmup_epochs=5,
            warmup_lr=1.5e-5, mixup=0.2, crop="affine", flip=0.0, ema=0.995,
        ),
        drop_path=0.1,
    ),
    # 64 image tokens and CLS, 1.6 M parameters: for a CPU, from trained weights.
    "patch4": Recipe(
        _cifar10(4, 128, 8, 4),
        CIFAR10_PREPROCESSING,
        "cifar10",
        _LIGHT.replace(epochs=8, batch_size=128, lr=7e-4, crop="padded", ema=0.998),
    ),
    # 256 image tokens and CLS, 5.4 M parameters: for a GPU, from random weights.
    "patch2": Recipe(
        _cifar10(2, 192, 12, 3),
        CIFAR10_PREPROCESSING,
        "cifar10",
        Settings(
            epochs=300, batch_size=512, lr=1e-3, warmup_epochs=10, warmup_lr=0.0, clip_grad=1.0,
            crop="padded", auto_augment="rand-m3-n2", ema=0.9995, ema_warmup=True, amp="bf16",
        ),
        drop_path=0.1,
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line and write the fp16 checkpoint.

    Args:
        arguments: the command line without the program; ``sys.argv`` by default.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--data", help="cifar10-train.zip, or a folder of it")
    parser.add_argument("--test", help="cifar10-test.zip, or a folder of it")
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--limit", type=int, help="maximum number of training images")
    parser.add_argument("--resume", action="store_true", help="continue a killed run")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--device", help="cpu, cuda, …; by default a GPU if available")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    recipe = RECIPES[options.recipe]
    settings = recipe.settings.replace(**dict(read_assignment(t, "--set") for t in options.set))
    data, test = (recipe.data + (f":{p}" if p else "") for p in (options.data, options.test))
    check_output(options.output, (SAFE_SUFFIX,), overwrite=options.overwrite or options.resume)

    torch.manual_seed(settings.seed)
    model = VisionTransformer(**recipe.config, drop_path_rate=recipe.drop_path)
    model.pretrained_cfg = recipe.preprocessing | {"num_classes": 10}
    began = "random weights"
    if options.init is not None:
        load_strictly(model, read_checkpoint(options.init)[0], str(options.init))
        began = f"weights {state_digest(model.state_dict())}"
    run = finetune(
        model, tr.Strategy.dense(), data, validation=test,
        output=options.output.with_suffix(""), settings=settings, resume=options.resume,
        overwrite=options.overwrite, device=options.device, workers=options.workers,
        limit=options.limit,
    )  # fmt: skip
    base = run.model.base.half()
    halved = base.state_dict()
    found = tr.evaluate(base.float(), test, progress=False)
    metadata = {
        "config": recipe.config,
        "preprocessing": recipe.preprocessing,
        "top1": f"{found.top1:.2f}",
        "data": f"{recipe.data}: trained on train, top1 on {found.count} images of test",
        "recipe": settings.as_dict() | {"drop_path": recipe.drop_path},
        "from": began,
        "command": f"python scripts/train_embedded.py {options.recipe}",
        "torch": torch.__version__,
        "license": "Apache-2.0",
    }
    save_checkpoint(options.output, halved, metadata, overwrite=True)
    print(f"{options.output}: top-1 {found.top1:.2f}% of {found.count} test images")


if __name__ == "__main__":
    main()
