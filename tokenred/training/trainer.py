"""The training loop, resumable after every epoch."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError, ConfigError, DataError
from tokenred.data import SKIPPED_LABEL
from tokenred.models.checkpoint_file import check_fit
from tokenred.models.lvvit import LVViT
from tokenred.reduced.model import ReducedViT
from tokenred.training.devices import random_as
from tokenred.training.losses import Criterion
from tokenred.training.optimise import make_optimizer, make_schedule, reduction_share, warmed
from tokenred.training.settings import Settings

_MIX, _STEP = -2, -3  # random streams separate from those of the images


class _TrainForward(nn.Module):
    """``forward_train`` as a forward, which is what accelerate and DDP hook into."""

    def __init__(self, model: ReducedViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
        return self.model.forward_train(images)


class Trainer:
    """A model, which is trained in place, with everything its training needs."""

    def __init__(
        self,
        model: ReducedViT,
        teacher: nn.Module | None,
        criterion: Criterion,
        settings: Settings,
        steps: int,
        accelerator: Any,
    ) -> None:
        self.device = accelerator.device
        self.model = model.to(self.device)
        self.teacher = None if teacher is None else teacher.to(self.device)
        self.criterion, self.settings, self.steps = criterion, settings, steps
        self.accelerator = accelerator
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
        optimizer = make_optimizer(model, settings)
        self._schedule = make_schedule(optimizer, settings, steps)
        self._prepared, self.optimizer = accelerator.prepare(self._forward, optimizer)

    @property
    def result(self) -> ReducedViT:
        """The averaged model, or the model itself if there is no average."""
        result: ReducedViT = self.model if self.ema is None else self.ema.module
        return result

    def epoch(
        self, number: int, batches: Iterable[Any], after_step: Callable[[], object]
    ) -> dict[str, float]:
        """Train for an epoch, whose number determines rates, reduction and random numbers.

        Returns:
            The epoch, the mean loss and its terms, the last learning rate, and so on.
        """
        share = reduction_share(number, self.settings.keep_warmup)
        began = time.perf_counter()
        current = self.model.with_strategy(warmed(self.model, share))
        self._forward.model = current
        # If nothing is removed, there is no reduction for a term to measure.
        idle = all(x.removed == 0 and x.active == x.tokens_in for x in current.cost().layers)
        criterion = replace(self.criterion, ratio=0.0, token_cut=0.0) if idle else self.criterion
        self._prepared.train()
        self.model.train()
        sums: dict[str, Tensor] = {}
        rank = self.accelerator.process_index
        for place, (images, labels, _) in enumerate(batches):
            step = number * self.steps + place
            with random_as(self.settings.seed, _STEP, step, rank, devices=True):
                parts = self._step(step, *_readable(images, labels), number, criterion)
            sums = {k: sums.get(k, torch.zeros_like(v)) + v for k, v in parts.items()}
            after_step()
        count = self.steps * self.accelerator.num_processes
        means = {k: float(self.accelerator.reduce(v, "sum")) / count for k, v in sums.items()}
        if not math.isfinite(means["loss"]):
            raise ConfigError(
                f"the loss became {means['loss']} in epoch {number}; train with a smaller lr, or "
                "with amp='bf16' instead of fp16."
            )
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        seconds = time.perf_counter() - began
        return {"epoch": float(number), **means, "lr": lr, "reduction": share, "seconds": seconds}

    def _step(
        self, step: int, images: Tensor, labels: Tensor, epoch: int, criterion: Criterion
    ) -> dict[str, Tensor]:
        images, targets = images.to(self.device), labels.to(self.device)
        if self.mixup is not None:
            even = len(images) // 2 * 2  # timm mixes pairs
            with random_as(self.settings.seed, _MIX, step, self.accelerator.process_index):
                images, targets = self.mixup(images[:even], targets[:even])
        self._schedule.step_update(step)
        if epoch < self.settings.backbone_frozen:
            for group in self.optimizer.param_groups:
                group["lr"] *= not group["backbone"]
        logits, aux = self._prepared(images)
        again = self._again(images) if criterion.looks_twice else None
        loss, parts = criterion(logits, targets, aux, *self._taught(images, criterion), again)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.settings.clip_grad is not None:
            self.accelerator.clip_grad_norm_(list(self.model.parameters()), self.settings.clip_grad)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step + 1)
        return {"loss": loss.detach(), **parts}

    def _again(self, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """A second pass, which removes a random share of the tokens, at most half as many."""
        model = self._forward.model
        self._forward.model = model.with_strategy(warmed(model, float(torch.rand(())) / 2))
        try:
            result: tuple[Any, dict[str, Tensor]] = self._prepared(images)
        finally:
            self._forward.model = model
        return result

    @torch.no_grad()
    def _taught(self, images: Tensor, criterion: Criterion) -> tuple[Any, Any]:
        """The teacher's logits and features, in single precision."""
        if self.teacher is None:
            return None, None
        teacher: Any = self.teacher
        with self.accelerator.autocast():
            features = teacher.forward_features(images)
            if criterion.reads_apart and isinstance(teacher, LVViT):
                apart = teacher.forward_head(features, return_tokens=True)
                return tuple(x.float() for x in apart), features.float()
            return teacher.forward_head(features).float(), features.float()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during training."""
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], origin: str) -> None:
        """Continue from a state that `state_dict` returned; ``origin`` is for messages."""
        try:
            # Everything is checked before anything is loaded.
            _check_optimizer(self.optimizer, state["optimizer"])
            modules = {"model": self.model}
            if self.ema is not None:
                modules["ema"] = self.ema.module
            for name, module in modules.items():
                check_fit(module, state[name], origin)
            for name, module in modules.items():
                module.load_state_dict(state[name])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        # Values of another kind may raise anything.
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"expected the state of this training in {origin}, got another "
                f"({type(error).__name__}: {error}). Start again in another folder."
            ) from error


@contextmanager
def frozen(model: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    """Disable the gradients of the named parameters inside the block."""
    chosen = [p for name, p in model.named_parameters() if name in names and p.requires_grad]
    for parameter in chosen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in chosen:
            parameter.requires_grad_(True)


@torch.no_grad()
def correct(
    model: nn.Module, batches: Iterable[Any], accelerator: Any, images: int
) -> Float[Tensor, "images"]:
    """What a model classifies correctly (1) or not (0), over the batches of all processes.

    The model is put in eval mode. An image that cannot be read, or is in no batch, is NaN.

    Raises:
        DataError: if none can be read.
    """
    model.eval()
    right, seen = torch.zeros(2, images)
    for pixels, labels, index in batches:
        with accelerator.autocast():
            said = model(pixels.to(accelerator.device, non_blocking=True)).argmax(dim=-1).cpu()
        known = labels != SKIPPED_LABEL
        right[index[known]] = (said == labels)[known].float()
        seen[index[known]] = 1.0
    both = torch.stack((right, seen)).to(accelerator.device)
    right, seen = accelerator.reduce(both, "sum").cpu()
    if not seen.any():
        raise DataError("expected validation images, but none can be read; check the data.")
    return torch.where(seen > 0, right, torch.nan)


def _readable(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The batch without unreadable images."""
    good = labels != SKIPPED_LABEL
    if not good.any():
        raise DataError("expected images in a batch, but none of them can be read; check the data.")
    return (images, labels) if good.all() else (images[good], labels[good])


def _check_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Refuse an optimiser state with other options, or with moments of the wrong size."""
    own = optimizer.state_dict()["param_groups"]
    kinds = [{k: type(v) for k, v in group.items()} for group in (*own, *saved["param_groups"])]
    if kinds[: len(own)] != kinds[len(own) :]:
        raise ValueError("the optimiser has different parameter groups")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, moments in saved["state"].items():
        sizes = {1, *parameters[number].shape}
        for name, value in moments.items():
            # Some optimisers keep a moment along one axis.
            if isinstance(value, Tensor) and not (
                set(value.shape) <= sizes and value.numel() <= parameters[number].numel()
            ):
                raise ValueError(f"{name} of parameter {number} is {tuple(value.shape)}")
