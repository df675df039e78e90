"""The training loop: epochs of steps, each of which can be taken up where it was left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from tokenred.core.errors import ConfigError, DataError
from tokenred.data import SKIPPED_LABEL
from tokenred.models.lvvit import LVViT
from tokenred.reduced.model import ReducedViT
from tokenred.training.augment import readable
from tokenred.training.devices import OneDevice
from tokenred.training.losses import Criterion
from tokenred.training.optimise import freeze_backbone, make_optimizer, make_schedule
from tokenred.training.randomness import random_as
from tokenred.training.settings import Settings
from tokenred.training.warmup import reduction_share, warmed

__all__ = ["Trainer", "top1"]

_MIX, _STEP = -2, -3  # streams of random numbers beside those of the images


class _TrainForward(nn.Module):
    """``forward_train`` as a forward, which is what accelerate and DDP hook into."""

    def __init__(self, model: ReducedViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
        return self.model.forward_train(images)


class Trainer:
    """A model with all that its training needs.

    Args:
        model: trained in place.
        teacher: None for none; it never changes.
        criterion: the loss.
        settings: how.
        steps: in an epoch.
        device: where.
    """

    def __init__(
        self,
        model: ReducedViT,
        teacher: nn.Module | None,
        criterion: Criterion,
        settings: Settings,
        steps: int,
        device: OneDevice,
    ) -> None:
        self.model = model.to(device.device)
        self.teacher = None if teacher is None else teacher.to(device.device)
        self.criterion, self.settings, self.steps, self.device = criterion, settings, steps, device
        self.mixup = None
        if settings.mixes:
            self.mixup = Mixup(
                settings.mixup, settings.cutmix, prob=settings.mix_probability,
                switch_prob=settings.mix_switch, label_smoothing=settings.label_smoothing,
                num_classes=model.num_classes,
            )  # fmt: skip
        self.ema = None
        if settings.ema is not None:
            self.ema = ModelEmaV3(model, decay=settings.ema, use_warmup=settings.ema_warmup)
        self._forward = _TrainForward(model)
        bare = make_optimizer(model, settings)
        self._schedule = make_schedule(bare, settings, steps)
        self._prepared, self.optimizer = device.prepare(self._forward, bare)

    @property
    def result(self) -> ReducedViT:
        """The averaged model, or the model itself where none is averaged."""
        if self.ema is None:
            return self.model
        averaged: ReducedViT = self.ema.module
        return averaged

    def epoch(
        self, number: int, batches: Iterable[Any], after_step: Callable[[], object]
    ) -> dict[str, float]:
        """Train for an epoch.

        Args:
            number: from 0; it decides the rates, the reduction and the random numbers.
            batches: images, labels and indices.
            after_step: called after each step.

        Returns:
            Mean loss and its parts, and the last rate.

        Raises:
            ConfigError: where the loss is no number any more.
        """
        share = reduction_share(number, self.settings.keep_warmup)
        began = time.perf_counter()
        current = self.model.with_strategy(warmed(self.model, share))
        self._forward.model = current
        # Where nothing goes, there is no reduction that a term could measure.
        idle = all(x.removed == 0 and x.active == x.tokens_in for x in current.cost().layers)
        criterion = replace(self.criterion, ratio=0.0, token_cut=0.0) if idle else self.criterion
        self._prepared.train()
        self.model.train()
        sums: dict[str, Tensor] = {}
        for place, (images, labels, _) in enumerate(batches):
            step = number * self.steps + place
            with random_as(self.settings.seed, _STEP, step, self.device.rank, devices=True):
                parts = self._step(step, *readable(images, labels), number, criterion)
            sums = {k: sums.get(k, torch.zeros_like(v)) + v for k, v in parts.items()}
            after_step()
        count = self.steps * self.device.count
        means = {k: float(self.device.total(v)) / count for k, v in sums.items()}
        if not torch.tensor(means["loss"]).isfinite():
            raise ConfigError(
                f"the loss became {means['loss']} in epoch {number}; train with a smaller lr, or "
                "with amp='bf16' in place of fp16."
            )
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        return means | {"lr": lr, "reduction": share, "seconds": time.perf_counter() - began}

    def _step(
        self, step: int, images: Tensor, labels: Tensor, epoch: int, criterion: Criterion
    ) -> dict[str, Tensor]:
        images, targets = images.to(self.device.device), labels.to(self.device.device)
        if self.mixup is not None:
            even = len(images) // 2 * 2  # timm mixes pairs
            with random_as(self.settings.seed, _MIX, step, self.device.rank):
                images, targets = self.mixup(images[:even], targets[:even])
        self._schedule.step_update(step)
        if epoch < self.settings.backbone_frozen:
            freeze_backbone(self.optimizer)
        taught: tuple[Any, ...] = ()
        if self.teacher is not None:
            with torch.no_grad(), self.device.autocast():
                features = self.teacher.forward_features(images)  # type: ignore[operator]
                apart = criterion.reads_apart and isinstance(self.teacher, LVViT)
                options = {"return_tokens": True} if apart else {}
                said = self.teacher.forward_head(features, **options)  # type: ignore[operator]
                said = tuple(x.float() for x in said) if apart else said.float()
                taught = (said, features.float())
        logits, aux = self._prepared(images)
        loss, parts = criterion(logits, targets, aux, *taught)
        self.optimizer.zero_grad()
        self.device.backward(loss)
        if self.settings.clip_grad is not None:
            self.device.clip(list(self.model.parameters()), self.settings.clip_grad)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step + 1)
        return {"loss": loss.detach(), **parts}

    def state_dict(self) -> dict[str, Any]:
        """All that changes."""
        ema = None if self.ema is None else self.ema.module.state_dict()
        return {
            "model": self.model.state_dict(),
            "ema": ema,
            "optimizer": self.optimizer.state_dict(),
            "device": self.device.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.device.load_state_dict(state["device"])


@torch.no_grad()
def top1(model: nn.Module, batches: Iterable[Any], device: OneDevice) -> float:
    """The share of images that a model names rightly, over all processes.

    Args:
        model: put into eval mode.
        batches: this process's images, labels and indices.
        device: where.

    Raises:
        DataError: where no image can be read.
    """
    model.eval()
    counts = torch.zeros(2, dtype=torch.float64 if device.device.type != "mps" else torch.float32)
    for images, labels, _ in batches:
        with device.autocast():
            said = model(images.to(device.device, non_blocking=True)).argmax(dim=-1).cpu()
        known = labels != SKIPPED_LABEL
        counts += torch.stack(((said == labels)[known].sum(), known.sum()))
    right, seen = device.total(counts.to(device.device)).tolist()
    if not seen:
        raise DataError("expected images to measure on, and none can be read; check the data.")
    return float(right / seen)
