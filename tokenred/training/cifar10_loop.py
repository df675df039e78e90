"""The training of a CIFAR-10 model, its images held on the device as pixels."""

from __future__ import annotations

import time
from typing import Any

import torch
from timm.data import Mixup
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from tokenred.core.errors import ConfigError, DataError
from tokenred.data import SKIPPED_LABEL, open_dataset
from tokenred.models.fit import load_strictly
from tokenred.training.batch_augment import BatchAugment
from tokenred.training.cifar10_recipe import CIFAR10_PREPROCESSING, Cifar10Recipe
from tokenred.training.randomness import random_as
from tokenred.training.state import weights_digest

__all__ = ["Cifar10Training", "accuracy", "load_pixels"]

Pixels = tuple[Tensor, Tensor]


def load_pixels(path: str, split: str, device: torch.device) -> Pixels:
    """All images of a split at once.

    Args:
        path: an image folder, zip or tar; empty for the folder that ``TOKENRED_DATA`` names.
        split: ``"train"`` or ``"test"``.
        device: where to hold them.

    Returns:
        Pixels (n, 3, 32, 32) in uint8, and labels (n,).

    Raises:
        DataError: for what is not there, unreadable, or of another size.
    """
    data = open_dataset(f"cifar10:{path}", split=split)
    images = torch.empty(len(data), 3, 32, 32, dtype=torch.uint8)
    for index in tqdm(range(len(data)), desc=f"reading {split}", disable=None):
        image, label, _ = data[index]
        if label == SKIPPED_LABEL or image.shape != images.shape[1:]:
            why = data.why_unreadable(index) or f"it is {tuple(image.shape)}"
            raise DataError(f"expected {data.name_of(index)} to be 32x32 pixels: {why}.")
        images[index] = (image * 255).round()
    return images.to(device), torch.tensor(data.labels).to(device)


@torch.no_grad()
def accuracy(model: nn.Module, pixels: Pixels, augment: BatchAugment) -> float:
    """The share of images that a model, put into eval mode, names rightly."""
    model.eval()
    images, labels = pixels
    logits = torch.cat([model(augment.normalise(part)) for part in images.split(500)])
    return float((logits.argmax(-1) == labels).double().mean())


class Cifar10Training:
    """A model with all that its training needs, resumable after each epoch.

    Args:
        recipe: how.
        train: the training images.
        init: weights to begin with; None for random ones.
    """

    def __init__(
        self, recipe: Cifar10Recipe, train: Pixels, init: dict[str, Tensor] | None = None
    ) -> None:
        self.recipe, self.train = recipe, train
        self.device = train[0].device
        self.steps = len(train[0]) // recipe.batch_size
        if self.steps == 0:
            raise ConfigError(
                f"expected at least one batch of {recipe.batch_size}, got {len(train[0])} images."
            )
        with random_as(recipe.seed, -1):
            self.model = VisionTransformer(**recipe.config, drop_path_rate=recipe.drop_path)
        if init is not None:
            load_strictly(self.model, init, "the initial weights")
        self.began_from = weights_digest(self.model)
        self.model.to(self.device, memory_format=torch.channels_last)
        self.ema = ModelEmaV3(self.model, decay=recipe.ema, use_warmup=True)
        self.optimizer = create_optimizer_v2(
            self.model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self._schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=recipe.epochs * self.steps,
            warmup_t=recipe.warmup_epochs * self.steps,
            warmup_lr_init=0.0,
            warmup_prefix=True,
            t_in_epochs=False,
            lr_min=recipe.min_lr,
        )
        self.augment = BatchAugment(
            tuple(CIFAR10_PREPROCESSING["mean"]),
            tuple(CIFAR10_PREPROCESSING["std"]),
            operations=recipe.operations,
            magnitude=recipe.magnitude,
            erasing=recipe.erasing,
            device=self.device,
        )
        self._mixup = None
        if recipe.mixup or recipe.cutmix:
            self._mixup = Mixup(
                recipe.mixup, recipe.cutmix, num_classes=10, label_smoothing=recipe.label_smoothing
            )

    def epoch(self, number: int) -> dict[str, float]:
        """Train for one epoch, from 0; all its random numbers hang on seed and number.

        Raises:
            ConfigError: where the loss is no number any more.
        """
        began, total = time.perf_counter(), torch.zeros((), device=self.device)
        self.model.train()
        with random_as(self.recipe.seed, number, devices=True):
            order = torch.randperm(len(self.train[0]))
            batches = order[: self.steps * self.recipe.batch_size].view(self.steps, -1)
            bar = tqdm(batches.to(self.device), leave=False, disable=None)
            for place, members in enumerate(bar):
                total += self._step(number * self.steps + place, members)
        loss = float(total) / self.steps
        if loss != loss:
            raise ConfigError(f"the loss is no number any more in epoch {number}; lower lr.")
        return {"epoch": float(number), "loss": loss, "seconds": time.perf_counter() - began}

    def _step(self, step: int, members: Tensor) -> Tensor:
        recipe = self.recipe
        images, targets = self.augment(self.train[0][members]), self.train[1][members]
        smoothing = recipe.label_smoothing
        if self._mixup is not None:  # It smooths the targets as well.
            images, targets = self._mixup(images, targets)
            smoothing = 0.0
        images = images.contiguous(memory_format=torch.channels_last)
        self._schedule.step_update(step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.amp == "bf16"):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.ema.update(self.model, step=step + 1)
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that changes."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
