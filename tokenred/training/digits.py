"""Train the embedded digits model from scratch: ``python -m tokenred.training.digits --out FILE``.

Only the train split is trained on. Hyper-parameters were picked with ``--validate``, which holds
out a part of the train split; the test split is looked at once, after the last step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from tokenred.data.digits import digit_image, digits_arrays
from tokenred.models.checkpoint_file import check_writable, save_checkpoint
from tokenred.models.digits_config import DIGITS_CONFIG, DIGITS_PREPROCESSING
from tokenred.training.digits_augment import AffineRange, mix, random_affine

__all__ = ["Recipe", "accuracy", "load_split", "main", "train"]


@dataclass(frozen=True)
class Recipe:
    """How the model is trained; the defaults made the embedded weights."""

    epochs: int = 120
    batch_size: int = 96
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    drop_path: float = 0.1
    label_smoothing: float = 0.05
    mixup: float = 0.2
    ema_decay: float = 0.995
    clip: float = 1.0
    seed: int = 0
    affine: AffineRange = field(default_factory=AffineRange)


def load_split(split: str) -> tuple[Tensor, Tensor]:
    """Load a split as the pictures that the model sees, before normalisation.

    Args:
        split: ``"train"`` or ``"test"``.

    Returns:
        Images (n, 3, 32, 32) in 0..1, and labels (n,).

    Raises:
        DataError: for any other split.
    """
    pixels, labels = digits_arrays(split)
    images = torch.stack([pil_to_tensor(digit_image(p)) for p in pixels]).float() / 255
    return images, torch.from_numpy(labels.astype(np.int64))


def _normalise(images: Tensor) -> Tensor:
    mean = torch.tensor(DIGITS_PREPROCESSING["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(DIGITS_PREPROCESSING["std"]).view(1, 3, 1, 1)
    return (images - mean) / std


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the model names rightly.

    Args:
        model: gives logits (n, classes); it is put into eval mode.
        images: (n, 3, 32, 32) in 0..1.
        labels: (n,).
    """
    model.eval()
    logits = torch.cat([model(part) for part in _normalise(images).split(256)])
    return float((logits.argmax(-1) == labels).double().mean())


def train(
    images: Tensor, labels: Tensor, recipe: Recipe | None = None, *, progress: bool = True
) -> nn.Module:
    """Train the digits model from scratch on the CPU.

    Args:
        images: (n, 3, 32, 32) in 0..1.
        labels: (n,), values 0..9.
        recipe: how to train; the embedded weights' recipe by default.
        progress: show a bar.

    Returns:
        The averaged (EMA) model in eval mode.
    """
    recipe = recipe or Recipe()
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    model = VisionTransformer(**DIGITS_CONFIG, drop_path_rate=recipe.drop_path)
    ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    steps = -(-len(images) // recipe.batch_size)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps,
        warmup_t=recipe.warmup_epochs * steps,
        warmup_lr_init=recipe.lr / 100,
        warmup_prefix=True,
        t_in_epochs=False,
        lr_min=recipe.lr / 100,
    )
    step = 0
    for _ in (bar := tqdm(range(recipe.epochs), unit="epoch", disable=not progress)):
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for part in order.split(recipe.batch_size):
            schedule.step_update(step)
            loss = _loss(model, images[part], labels[part], recipe, generator)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            step += 1
            ema.update(model, step=step)
        bar.set_postfix(loss=f"{loss.item():.3f}")
    averaged: nn.Module = ema.module
    return averaged.eval()


def _loss(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    moved = random_affine(images, recipe.affine, generator)
    targets = F.one_hot(labels, DIGITS_CONFIG["num_classes"]).float()
    moved, targets = mix(moved, targets, recipe.mixup, generator)
    logits = model(_normalise(moved))
    return F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)


def _metadata(recipe: Recipe, top1: float) -> dict[str, Any]:
    return {
        "config": DIGITS_CONFIG,
        "preprocessing": DIGITS_PREPROCESSING,
        "top1": f"{100 * top1:.2f}",
        "data": "embedded digits: trained on the 1437 of train, top1 on the 360 of test",
        "recipe": asdict(recipe),
        "command": "python -m tokenred.training.digits",
        "torch": torch.__version__,
        "license": "Apache-2.0",
    }


def _validate(recipe: Recipe, folds: int, fold: int) -> None:
    images, labels = load_split("train")
    held_out = torch.arange(len(labels)) % folds == fold
    model = train(images[~held_out], labels[~held_out], recipe)
    score = accuracy(model, images[held_out], labels[held_out])
    print(f"validation top-1: {100 * score:.2f}% of {int(held_out.sum())}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line and write the fp16 checkpoint.

    Args:
        arguments: the command line without the program; ``sys.argv`` by default.

    Raises:
        OutputExistsError: if the output exists and ``--overwrite`` was not given.
    """
    parser = argparse.ArgumentParser(description="Train the embedded digits ViT.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="the .safetensors file to write")
    what.add_argument("--validate", action="store_true", help="hold out a part of train instead")
    parser.add_argument("--fold", type=int, default=0, help="which sixth --validate holds out")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe = Recipe(epochs=options.epochs, seed=options.seed)
    if options.validate:
        _validate(recipe, folds=6, fold=options.fold)
        return
    check_writable(options.out, overwrite=options.overwrite)
    model = train(*load_split("train"), recipe).half()
    top1 = accuracy(model.float(), *load_split("test"))
    state = {name: value.half() for name, value in model.state_dict().items()}
    save_checkpoint(options.out, state, _metadata(recipe, top1), overwrite=options.overwrite)
    print(f"{options.out}: held-out top-1 {100 * top1:.2f}%")


if __name__ == "__main__":
    main()
