"""A strategy resolved on a model as it is at this moment, and whether the model still is that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any, TypeAlias

from torch import nn

from tokenred.backbones import Backbone, adapt
from tokenred.backbones.watch import Watch
from tokenred.core.errors import BackboneError
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.core.part import Part
from tokenred.reduced.adaptive import check_padded
from tokenred.reduced.cost import Cost
from tokenred.reduced.plan import LayerPlan, plan_layers, resolve_budget, strategy_cost
from tokenred.strategies.strategy import Strategy

__all__ = ["Setup"]

# Blocks that are left, and what all of them cost before.
Pruned: TypeAlias = tuple[tuple[nn.Module, ...], tuple[BlockInfo, ...]]

# Parts that are built for the model.
_BUILT = ("selector", "fuser", "router", "embedding", "graph")


@dataclass(frozen=True, eq=False)
class Setup:
    """All that is worked out about a model and a strategy before anything runs.

    Attributes:
        backbone: the adapter of the model.
        asked: the strategy as it was given.
        strategy: the same, with a budget spent by the router where it is the router that saves.
        parts: the method's parts as they run (built for this model).
        info, stem: the model, and what its embedding costs.
        watch: tells whether the model is still this one.
        pruned: where blocks were pruned, those that are left, and the blocks that there were, which
            schedules go on to go by.
        plans: by grid and number of tokens.
    """

    backbone: Backbone
    asked: Strategy
    strategy: Strategy
    parts: Mapping[str, Part]
    info: ModelInfo
    stem: float
    watch: Watch
    pruned: Pruned | None = None
    plans: dict[tuple[tuple[int, int] | None, int], tuple[LayerPlan, ...]] = field(
        default_factory=dict
    )

    @classmethod
    def of(
        cls,
        model: nn.Module,
        asked: Strategy,
        learned: Mapping[str, nn.Module],
        made_for: ModelInfo | None = None,
        pruned: Pruned | None = None,
    ) -> Setup:
        """Resolve a strategy on a model.

        Args:
            model: that an adapter knows.
            asked: the strategy.
            learned: parts with weights that are there already, by name.
            made_for: the model that those were made for, if not this one.
            pruned: see above.

        Raises:
            BackboneError, ConfigError, ScheduleError: for a strategy that does not fit the model,
                or weights that do not.
        """
        backbone = adapt(model)
        watch = Watch(model, tuple(m for block in backbone.blocks for m in block.dropouts))
        info = backbone.info
        if pruned is not None and pruned[0] == tuple(block.whole for block in backbone.blocks):
            info = changed(info, blocks=pruned[1])
        else:
            pruned = None
        asked.check(info)
        stem = backbone.stem_macs()
        strategy = resolve_budget(asked, info, stem)
        fits = made_for is None or _shape(made_for) == _shape(info)
        parts: dict[str, Part] = {}
        for name in _BUILT:
            old, part = learned.get(name), getattr(strategy, name)
            parts[name] = part.built_for(info, old if fits else None)
            if old is not None and not fits:
                _take_weights(name, parts[name].network, old)
        made = cls(backbone, asked, strategy, parts, info, stem, watch, pruned)
        if any(plan.adaptive for plan in made.plan(info.grid, info.num_patches)):
            check_padded(backbone, strategy)
        return made

    def again(self) -> Setup:
        """The same strategy on the model as it is now; parts keep their weights.

        Raises:
            BackboneError: for weights that were made for a model of other shapes.
            BackboneError, ConfigError, ScheduleError: for a strategy that does not fit any more.
        """
        model = self.backbone.model
        return Setup.of(model, self.asked, self.learned, self.info, self.pruned)

    @property
    def learned(self) -> dict[str, nn.Module]:
        """The weights of the parts, by name."""
        return {k: p.network for k, p in self.parts.items() if p.network is not None}

    @property
    def pads(self) -> bool:
        """Whether images of a batch may keep different numbers of tokens."""
        return any(plan.adaptive for plan in self.own_plans)

    @property
    def own_plans(self) -> tuple[LayerPlan, ...]:
        """The plans at the model's own size."""
        return self.plan(self.info.grid, self.info.num_patches)

    def plan(self, grid: tuple[int, int] | None, tokens: int) -> tuple[LayerPlan, ...]:
        """What the blocks do with so many tokens of a grid."""
        key = (grid, tokens)
        if key not in self.plans:
            info = self.info
            if grid is not None and grid != info.grid:
                info = info.at(grid)
                self.strategy.check(info)
            info = info.with_tokens(tokens)
            self.plans[key] = plan_layers(self.strategy, info, self.stem, self.parts)
        return self.plans[key]

    def cost(self, image_size: tuple[int, int] | None) -> Cost:
        """See `ReducedViT.cost`."""
        info, stem, plans = self.info, self.stem, self.own_plans
        if image_size is not None:
            self.backbone.check_size(*image_size)
            grid = self.backbone.grid_of(*image_size)
            info, stem = info.at(grid), self.backbone.stem_macs(image_size)
            plans = self.plan(grid, info.num_patches)
        counts = [plan.count for plan in plans[: len(self.backbone.blocks)]]
        return strategy_cost(self.strategy, info, counts, stem)


def _shape(info: ModelInfo) -> ModelInfo:
    """What parts may go by: all but the name and the head."""
    return changed(info, name="", head_per_token=0, head_per_pair=0, head_fixed=0)


def _take_weights(name: str, new: Any, old: nn.Module) -> None:
    """Put the very parameters of a part into one that was built anew."""
    ours, theirs = new.state_dict(), old.state_dict()
    wrong = [k for k in {**ours, **theirs} if _size(ours, k) != _size(theirs, k)]
    if wrong:
        raise BackboneError(
            f"the model was changed since it was wrapped, and the weights of its {name} do not fit "
            f"any more: {wrong[0]} is {_size(theirs, wrong[0])}, wanted {_size(ours, wrong[0])}. "
            "Wrap it anew, and train them."
        )
    modules = dict(old.named_modules())
    for path, module in new.named_modules():
        module._parameters.update(modules[path]._parameters)
        module._buffers.update(modules[path]._buffers)
    new.train(old.training)


def _size(weights: Mapping[str, object], key: str) -> object:
    value = weights.get(key)
    return tuple(value.shape) if hasattr(value, "shape") else value
