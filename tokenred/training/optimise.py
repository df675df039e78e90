"""timm's optimiser and schedule, with separate learning rates for backbone and learned parts."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import nn

from tokenred.core.errors import ConfigError
from tokenred.training.settings import Settings

__all__ = ["make_optimizer", "make_schedule"]

_PARTS = "parts."


def make_optimizer(model: nn.Module, settings: Settings) -> Any:
    """Create one of timm's optimisers for the parameters that have gradients.

    Each group says whether it belongs to the backbone, and its learning rate is scaled accordingly.

    Raises:
        ConfigError: if timm does not have the optimiser, or there is nothing to train.
    """
    named: Any = getattr(model, "no_weight_decay", None)
    exempt = set() if named is None else set(named())
    groups: list[dict[str, Any]] = param_groups_weight_decay(
        model, settings.weight_decay, no_weight_decay_list=exempt
    )
    learned = {id(p) for name, p in model.named_parameters() if name.startswith(_PARTS)}
    split: list[dict[str, Any]] = []
    for group in groups:
        for backbone in (True, False):
            chosen = [p for p in group["params"] if (id(p) not in learned) == backbone]
            if chosen:
                scale = settings.backbone_lr if backbone else 1.0
                split.append(group | {"params": chosen, "lr_scale": scale, "backbone": backbone})
    if not split:
        raise ConfigError("expected parameters to train, but all are frozen.")
    try:
        return create_optimizer_v2(split, opt=settings.optimizer, lr=settings.full_lr)
    except (ValueError, AssertionError, KeyError) as error:
        raise ConfigError(f"expected one of timm's optimisers: {error}") from error


def make_schedule(optimizer: Any, settings: Settings, steps: int) -> Any:
    """Create one of timm's schedules. ``step_update(step)`` sets it; it keeps no state.

    Args:
        optimizer: the optimiser whose learning rates it sets.
        settings: shape and learning rates.
        steps: steps per epoch.

    Raises:
        ConfigError: if timm does not have the schedule, or it depends on the results.
    """
    if settings.scheduler == "plateau":
        raise ConfigError("the schedule 'plateau' depends on results; choose cosine, step or poly.")
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=settings.scheduler,
            num_epochs=settings.epochs,
            min_lr=settings.min_lr,
            warmup_lr=settings.warmup_lr,
            warmup_epochs=settings.warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
    except ValueError as error:
        raise ConfigError(f"expected one of timm's schedules: {error}") from error
    if schedule is None:
        raise ConfigError(f"expected one of timm's schedules, got {settings.scheduler!r}.")
    return schedule
