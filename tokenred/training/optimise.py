"""What changes during training: timm's optimiser and schedule, and the share of the reduction."""

import math
from dataclasses import replace
from typing import Any

from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import nn

from tokenred.core.errors import ConfigError
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.plan import plan_layers
from tokenred.strategies.routers import Idle
from tokenred.strategies.schedule import Schedule
from tokenred.strategies.schedules import KeepRatio, PerLayer
from tokenred.strategies.score_mods import TopKeys
from tokenred.strategies.strategy import Strategy
from tokenred.training.settings import Settings

_PARTS = "parts."


def make_optimizer(model: nn.Module, settings: Settings) -> Any:
    """Create one of timm's optimisers for the parameters that have gradients.

    Each parameter group records whether it belongs to the backbone, whose learning rate is scaled.
    """
    named: Any = getattr(model, "no_weight_decay", set)
    groups: list[dict[str, Any]] = param_groups_weight_decay(
        model, settings.weight_decay, no_weight_decay_list=set(named())
    )
    learned = {id(p) for name, p in model.named_parameters() if name.startswith(_PARTS)}
    split: list[dict[str, Any]] = []
    for group in groups:
        for backbone, scale in ((True, settings.backbone_lr), (False, 1.0)):
            chosen = [p for p in group["params"] if (id(p) not in learned) == backbone]
            if chosen:
                split.append(group | {"params": chosen, "lr_scale": scale, "backbone": backbone})
    if not split:
        raise ConfigError("expected parameters to train, but all are frozen.")
    try:
        return create_optimizer_v2(split, opt=settings.optimizer, lr=settings.full_lr)
    except (ValueError, AssertionError, KeyError) as error:
        raise ConfigError(f"expected one of timm's optimisers: {error}") from error


def make_schedule(optimizer: Any, settings: Settings, steps: int) -> Any:
    """Create one of timm's schedules; ``step_update(step)`` sets the rates, and it has no state."""
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


def reduction_share(epoch: int, warmup: tuple[int, int] | None) -> float:
    """The share of the reduction that is active in an epoch (from 0), from 0 to 1.

    With a warm-up (start, length): 0 before ``start``, then half a cosine up to 1.

    Source: EViT (Liang et al., ICLR 2022), training from scratch: start 10, length 100.
    """
    start, length = warmup or (0, 0)
    if epoch >= start + length:
        return 1.0
    return (1 - math.cos(math.pi * max(0, epoch - start) / length)) / 2


def warmed(reduced: ReducedViT, share: float) -> Strategy:
    """The strategy of a model, scaled to a share of its reduction.

    Keep rates of tokens, and of the keys in Tri-Level's mask, go from 1 to the strategy's own
    value; counts are multiplied by the share.
    """
    whole = reduced.strategy
    if share >= 1:
        return whole

    def nearer_one(ratio: Any) -> Any:
        if isinstance(ratio, tuple):
            return tuple(map(nearer_one, ratio))
        return 1 - (1 - ratio) * share

    router = whole.router
    if isinstance(router, Idle):
        router = replace(router, keep_ratios=nearer_one(router.keep_ratios))
    steps = []
    plan = plan_layers(whole, reduced.info, reduced.backbone.stem_macs())
    for step, counts in zip(whole.steps, plan.counts, strict=True):
        if isinstance(step.schedule, KeepRatio):
            ratio = nearer_one(step.schedule.ratio)
            schedule: Schedule = replace(step.schedule, ratio=ratio)
        else:
            # Of any schedule, the counts on this model are known.
            schedule = PerLayer(tuple(round(count * share) for count in counts))
        steps.append(step.replace(schedule=schedule))
    score_mods = tuple(
        replace(mod, ratio=nearer_one(mod.ratio)) if isinstance(mod, TopKeys) else mod
        for mod in whole.score_mods
    )
    return whole.replace(steps=tuple(steps), router=router, score_mods=score_mods)
