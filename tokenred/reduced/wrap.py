"""`wrap`: a model and a strategy become a `ReducedViT`."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from tokenred.backbones import adapt
from tokenred.backbones.huggingface import HuggingFaceViT
from tokenred.core.errors import InputError, PartError, UnknownNameError, UnusedWarning, shown
from tokenred.reduced.model import ReducedViT, resolved
from tokenred.reduced.tower import ReducedTower
from tokenred.strategies.schedules import Budget
from tokenred.strategies.specs import StrategyLike, write_spec
from tokenred.strategies.strategy import FIELDS, Strategy, recipes


def wrap(
    model: nn.Module,
    strategy: StrategyLike,
    *,
    engine: str = "auto",
    check: bool = False,
    **arguments: Any,
) -> ReducedViT:
    """Run a model with fewer tokens.

    The result shares the model's modules and parameters, so both have the same training mode,
    device and weights. The model's code and its own forward are unchanged, even if a check fails.

    Args:
        model: a timm VisionTransformer (see `tokenred.backbones`), or a `ReducedViT`, whose base is
            then wrapped again.
        strategy: a `Strategy`, or text: a recipe's name, ``"gtp:P=8"``, ``"tome@0.65"``, the path
            of a ``.toml`` (`tokenred.analysis.parse_spec`). ``@0.65``: at most 0.65 of the dense
            model's GMACs.
        engine: ``"auto"``, or an attention engine by name (`tokenred.attention.pick_engine`).
        check: also check what takes time: refuse images with NaN or infinite values, scores that
            are NaN, and selections that hold a token twice (not when compiled).
        arguments: refused; those of a recipe belong to ``strategy``.

    Raises:
        BackboneError: for a model that no adapter knows.
        ConfigError: for a part that does not fit the model.
        ScheduleError: if more tokens would be removed than there are.

    Warns:
        UntrainedPartWarning: for a part whose weights are random until trained or loaded.
        UnusedWarning: for a `Strategy` with a part that changes nothing (`Strategy.unused`), or
            with a budget that is larger than the cost of the model.
    """
    if arguments:
        name = strategy if isinstance(strategy, str) else "gtp"
        known = {"budget", *FIELDS}.union(*(recipe.parameters for recipe in recipes))
        if unknown := sorted(set(arguments) - known):
            raise UnknownNameError.of("parameter", unknown[0], ("engine", "check"), "wrap")
        first, share = next(iter(arguments)), arguments.pop("budget", None)
        written = write_spec(name, arguments) + ("" if share is None else f"@{share}")
        given = ", ".join(f"{key}={shown(value)}" for key, value in arguments.items())
        apart = f", or wrap(model, strategy({name!r}, {given}))" if share is None else ""
        raise UnknownNameError(
            f"wrap has no parameter {first!r}. Arguments of a recipe and a budget belong to the "
            f"strategy: wrap(model, {written!r}){apart}."
        )
    if isinstance(strategy, nn.Module):
        raise PartError("expected wrap(model, strategy), got a model as the strategy; swap them.")
    base = model.base if isinstance(model, ReducedViT) else model
    kind = ReducedTower if HuggingFaceViT.knows(base) else ReducedViT
    reduced = kind(base, resolved(base, strategy), engine=engine, check=check)
    if not isinstance(strategy, Strategy):
        return reduced
    # Arguments of a recipe that count for nothing are accepted.
    for told in (told for told in strategy.unused if told not in strategy.unread):
        warnings.warn(f"{told} (in {strategy!r}).", UnusedWarning, stacklevel=2)
    for step in reduced.strategy.steps:
        budget = step.schedule
        if isinstance(budget, Budget) and budget.gmacs > (whole := gmacs(base)):
            warnings.warn(
                f"the budget is {budget.gmacs:.3g} GMACs and the whole model costs {whole:.3g}, so "
                "nothing is removed. A share of its cost is written as text: 'gtp@0.65'.",
                UnusedWarning,
                stacklevel=2,
            )
    return reduced


def dense(model: nn.Module) -> ReducedViT:
    """A model wrapped with nothing removed."""
    adapt(model)
    return wrap(model, Strategy.dense())


def gmacs(model: nn.Module, image_shape: Sequence[int] | None = None) -> float:
    """Cost of one image in 10⁹ multiply-accumulates, in closed form.

    Includes the backbone at the token counts that really run, and parts with weights. It does not
    include what a method spends on choosing and fusing: see ``reduced.cost().overhead_gmacs``. If
    the images decide how many tokens remain (``ats``), this is the maximum, and
    `tokenred.analysis.adaptive_cost` gives the cost of given images.

    Args:
        model: a `ReducedViT`, or a dense model that an adapter knows.
        image_shape: ``(channels, height, width)`` or ``(height, width)``; None for the model's own.
    """
    size = None
    if image_shape is not None:
        if not isinstance(image_shape, Sequence) or len(image_shape) not in (2, 3):
            raise InputError(
                "expected image_shape as (channels, height, width) or (height, width), got "
                f"{shown(image_shape)}."
            )
        size = (int(image_shape[-2]), int(image_shape[-1]))
    reduced = model if isinstance(model, ReducedViT) else dense(model)
    return reduced.cost(size).gmacs
