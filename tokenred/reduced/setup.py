"""A strategy resolved for a model as it is now."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tokenred.backbones import Backbone, BlockAdapter, adapt
from tokenred.core.errors import BackboneError, ConfigError, UntrainedPartWarning
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.core.state import TokenState
from tokenred.reduced.cost import Cost, counts_alive, strategy_cost
from tokenred.reduced.plan import (
    LayerPlan,
    Plan,
    adaptive_steps,
    built_parts,
    plan_layers,
    resolve_budget,
    step_parts,
)
from tokenred.reduced.shared import SharesBase, Watch
from tokenred.strategies.base import Fuser, Router, Selector
from tokenred.strategies.strategy import Strategy

# Remaining blocks, and the cost of all blocks before pruning.
Pruned: TypeAlias = tuple[tuple[nn.Module, ...], tuple[BlockInfo, ...]]


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything derived from a model and a strategy before anything runs.

    Attributes:
        asked, strategy: as given, and with a budget spent by the router if that is what saves.
        parts: the method's parts as they run (built for this model).
        info, stem: the model, and the cost of its embedding.
        watch: tells whether the model has changed.
        pads: whether the images of a batch may keep different numbers of tokens.
        pruned: the remaining blocks, and the original ones, which schedules still use.
        plans: by grid and number of tokens.
    """

    backbone: Backbone
    asked: Strategy
    strategy: Strategy
    parts: Mapping[str, Any]
    info: ModelInfo
    stem: float
    watch: Watch
    pads: bool
    pruned: Pruned | None = None
    plans: dict[tuple[tuple[int, int] | None, int], Plan] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        asked: Strategy,
        learned: Mapping[str, nn.Module],
        made_for: ModelInfo | None = None,
        pruned: Pruned | None = None,
    ) -> Setup:
        """Resolve a strategy for a model, or refuse it.

        Weights in ``learned`` exist already, and were made for ``made_for`` if not for this model.
        """
        backbone = adapt(model)
        watch = Watch(model, tuple(m for block in backbone.blocks for m in block.dropouts))
        info = backbone.info
        if pruned is not None and pruned[0] == tuple(block.whole for block in backbone.blocks):
            info = replace(info, blocks=pruned[1])
        else:
            pruned = None
        asked.check(info)
        stem = backbone.stem_macs()
        strategy = resolve_budget(asked, info, stem)
        fits = made_for is None or _shape(made_for) == _shape(info)
        parts: dict[str, Any] = {}
        counts: Sequence[tuple[int, ...]] = [()] * len(strategy.steps)
        if any(s.fuser.replaces for s in strategy.steps):
            # Whose number of weights depends on the tokens that it makes.
            counts = plan_layers(strategy, info, stem).counts
        for name, (number, part) in built_parts(strategy).items():
            told = info if number is None else replace(info, counts=counts[number])
            old = learned.get(name)
            parts[name] = part.built_for(told, old if fits else None)
            if old is not None and not fits:
                _take_weights(name, parts[name].network, old)
        pads = bool(adaptive_steps(strategy, info.depth))
        made = cls(backbone, asked, strategy, parts, info, stem, watch, pads, pruned)
        made.plan(info.grid, info.num_patches)  # refuses what does not fit
        if pads:
            _check_padded(backbone, strategy)
        return made

    def again(self) -> Setup:
        """The same strategy for the model as it is now; parts keep their weights."""
        made = Setup.of(self.backbone.model, self.asked, self.learned, self.info, self.pruned)
        if made.info == self.info and made.stem == self.stem:
            made.plans.update(self.plans)
        return made

    def step(self, number: int) -> tuple[Selector, Fuser]:
        """The selector and the fuser of a step, as they run."""
        selector, fuser = step_parts(number)
        return self.parts[selector], self.parts[fuser]

    @property
    def masks(self) -> bool:
        """Whether training masks tokens instead of removing them."""
        return any(step.selector.masks for step in self.strategy.steps)

    @property
    def router(self) -> Router:
        return self.parts["router"]  # type: ignore[no-any-return]

    @property
    def learned(self) -> dict[str, nn.Module]:
        """The weights of the parts, by name."""
        return {k: p.network for k, p in self.parts.items() if p.network is not None}

    @property
    def training(self) -> bool:
        """Whether parts with a training form use it."""
        return bool(self.backbone.model.training)

    @property
    def tracks_size(self) -> bool:
        """Whether anything reads token sizes."""
        strategy = self.strategy
        uses_size = any(step.fuser.uses_size for step in strategy.steps)
        return strategy.proportional_attention or uses_size or self.weighs

    @property
    def weighs(self) -> bool:
        """Whether the head's average counts a token once for each patch it represents.

        If merging conserves sizes, this is the dense average; released programs use the plain one.
        """
        conserves = all(s.fuser.traits.conserves_size for s in self.strategy.steps)
        return conserves and not self.strategy.reference and self.backbone.pooling == "average"

    def weight(self, state: TokenState) -> Tensor | None:
        """How often each of the final tokens counts in the head; None if all count equally."""
        weight = None
        if self.masks and "mask" in state.memory:
            weight = state.memory["mask"]
        elif state.size is not None and self.weighs:
            return state.size
        elif state.size is not None and self.pads:
            weight = (state.size > 0).to(state.size.dtype)
        if weight is not None and self.backbone.pooling == "unknown":
            raise BackboneError(
                f"the head of {self.info.name} cannot leave tokens out, which training with masked "
                "tokens requires. Inference is not affected. Use a model that "
                "pools by token, average, maximum or timm's AttentionPoolLatent."
            )
        return None if self.backbone.pooling == "token" else weight

    def plan(self, grid: tuple[int, int] | None, tokens: int) -> Plan:
        """The plan of the blocks for a grid and a number of tokens."""
        key = (grid, tokens)
        if key not in self.plans:
            info = self.info
            if grid is not None and grid != info.grid:
                info = info.at(grid)
                self.strategy.check(info)
            info = info.with_tokens(tokens)
            self.plans[key] = plan_layers(self.strategy, info, self.stem, self.parts)
        return self.plans[key]

    def opens(self, block: BlockAdapter, plan: LayerPlan) -> bool:
        """Whether a block is opened instead of being called as a module."""
        planned = plan.opens_in_training if self.training else plan.opens
        return (planned and (block.attends or plan.reads)) or block.must_open(plan.fewer)

    def check_blocks(self, plan: Plan) -> None:
        """Refuse blocks that must be opened but cannot be."""
        for block, layer in zip(self.backbone.blocks, plan.layers, strict=False):
            if (block.closed or block.passed_by) and self.opens(block, layer):
                block.check_open(self.backbone.model)

    def check_prefix(self, found: int) -> None:
        """Refuse tokens that are neither patches nor prefix tokens, such as prompts."""
        if found != self.info.num_prefix:
            raise BackboneError(
                f"{self.info.name}: expected {self.info.num_prefix} prefix tokens "
                f"(num_prefix_tokens) before the patches, got {found} from its embedding. Prompt "
                f"tokens belong to the prefix: set model.num_prefix_tokens = {found}, then wrap."
            )

    def cost(self, image_size: tuple[int, int] | None, alive: list[int] | None = None) -> Cost:
        """See `ReducedViT.cost`."""
        info, stem = self.info, self.stem
        if image_size is not None:
            self.backbone.check_size(*image_size)
            info = info.at(self.backbone.grid_of(*image_size))
            stem = self.backbone.stem_macs(image_size)
        if alive is None:
            left = len(self.backbone.blocks)
            planned = [own[:left] for own in self.plan(info.grid, info.num_patches).counts]
            found = strategy_cost(self.strategy, info, planned, stem)
            adaptive = adaptive_steps(self.strategy, info.depth)
            names = dict.fromkeys(type(step.selector).__name__ for step in adaptive)
            return replace(found, unknown=(*found.unknown, *names))
        counts = counts_alive(self.strategy, self.plan(info.grid, alive[0]).counts, alive)
        return strategy_cost(self.strategy, info.with_tokens(alive[0]), counts, stem)


class LiveModel(SharesBase):
    """A base model with a strategy, which is resolved again whenever the model has changed."""

    parts: nn.ModuleDict

    def __init__(self, base: nn.Module, asked: Strategy, given: Mapping[str, nn.Module]) -> None:
        setup = Setup.of(base, asked, given)
        learned = setup.learned
        if learned and hasattr(base, "parts"):
            raise BackboneError(
                f"{type(base).__name__} has an attribute called parts, the name needed for the "
                f"weights of {', '.join(learned)}. Rename it."
            )
        super().__init__(base)
        self._place: Any = None
        self._use(setup)
        self._refresh()
        setup.check_blocks(setup.plan(setup.info.grid, setup.info.num_patches))
        if new := [name for name in learned if name not in given]:
            warnings.warn(
                f"{', '.join(new)} of {asked!r}: the weights are untrained. Fine-tune them, or "
                "load trained ones with load_state_dict or tokenred.load.",
                UntrainedPartWarning,
                stacklevel=4,
            )

    def _use(self, setup: Setup) -> None:
        self._setup = setup
        self.strategy = setup.strategy
        if "parts" in self._modules:
            self.parts.update(setup.learned)
        elif learned := setup.learned:
            self.parts = nn.ModuleDict(learned)

    def _refresh(self, look: bool = False) -> Setup:
        """The current setup, after any changes of the model; refused if it no longer fits.

        ``look`` at weights too, whose shapes matter for costs but not for a forward.
        """
        if torch.compiler.is_dynamo_compiling():
            # The compiler runs this while tracing only; the compiled code has guards instead.
            self._refresh_untraced()
            self._setup.watch.guard()
            return self._setup
        if look or not self._setup.watch.holds():
            self._use(self._setup.again())
        if "parts" in self._modules and (setup := self._follow()) is not self._setup:
            self._use(setup)
        return self._setup

    def _refresh_untraced(self) -> bool:
        self._refresh()
        return True

    # `torch.compiler.assume_constant_result`, without importing the compiler.
    _refresh_untraced._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def _follow(self) -> Setup:
        """Use the learned parts in ``parts``, on the base's device and in its type."""
        setup, held = self._setup, self.parts._modules
        for name, part in setup.learned.items():
            if name not in held:
                raise BackboneError(f"parts.{name} was deleted, but the strategy needs it.")
            if held[name] is not part:
                swapped = setup.parts[name].with_network(self.parts[name])
                setup = replace(setup, parts={**setup.parts, name: swapped}, plans={})
        weight = next(self.base.parameters())
        place = (weight.device, weight.dtype)
        if self._place != place:
            self.parts.to(*place)
            self._place = place
        return setup

    def _learned_in(self, other: Strategy) -> dict[str, nn.Module]:
        """Learned parts that another strategy also has."""
        parts = self.parts.items() if "parts" in self._modules else ()
        ours, theirs = built_parts(self.strategy), built_parts(other)
        return {n: m for n, m in parts if ours[n] == theirs.get(n)}


def _check_padded(backbone: Backbone, strategy: Strategy) -> None:
    """Refuse what would count padding as tokens: θ, and some heads."""
    why = (
        f"{', '.join(repr(step.selector) for step in strategy.steps)}: the number of tokens kept "
        "depends on the image, so batches are padded, and "
    )
    if strategy.theta < 1:
        raise ConfigError(f"{why}theta={strategy.theta} would count the padding. Use theta=1.")
    if backbone.pooling == "unknown":
        raise ConfigError(
            f"{why}the head of {backbone.info.name} cannot leave padding out. Use a model that "
            "pools by token, average or maximum."
        )


def _shape(info: ModelInfo) -> ModelInfo:
    """What parts may depend on: everything but the name and the head."""
    return replace(info, name="", head_per_token=0, head_per_pair=0, head_fixed=0)


def _take_weights(name: str, new: nn.Module, old: nn.Module) -> None:
    """Move the parameters of a part into a newly built one."""
    ours, theirs = (
        {k: tuple(v.shape) for k, v in part.state_dict().items() if isinstance(v, Tensor)}
        for part in (new, old)
    )
    wrong = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
    if wrong:
        raise BackboneError(
            f"the model was changed after it was wrapped, and the weights of its {name} no longer "
            f"fit: {wrong[0]} is {theirs.get(wrong[0])}, expected {ours.get(wrong[0])}. Wrap it "
            "again, and train them."
        )
    modules = dict(old.named_modules())
    for path, module in new.named_modules():
        module._parameters.update(modules[path]._parameters)
        module._buffers.update(modules[path]._buffers)
    new.train(old.training)
