"""A model and a strategy put together: parts built, blocks planned, ready to run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokenred.attention import Engine, pick_engine
from tokenred.backbones import adapt
from tokenred.backbones.shared import SharesBase
from tokenred.core.adaptive import check_padded
from tokenred.core.cost import Cost
from tokenred.core.errors import BackboneError, UntrainedPartWarning
from tokenred.core.info import ModelInfo
from tokenred.core.layers import LayerPlan, fitted, needs_graph, plan_layers, strategy_cost
from tokenred.core.loop import Runner
from tokenred.core.origins import Origins
from tokenred.core.plan import Strategy
from tokenred.core.spans import Span, no_span
from tokenred.core.start import check_finite, embed
from tokenred.core.state import TokenState
from tokenred.core.trace import Recorder, Trace

__all__ = ["Wrapped"]

# Parts that are built for the model.
_BUILT = ("selector", "fuser", "route", "embedding", "graph")

# Under this name tokens carry their weights to the head.
_WEIGHT = "_pooling_weight"


class Wrapped(SharesBase):
    """What `ReducedViT` is made of; that class says what it gives."""

    def __init__(
        self,
        base: nn.Module,
        strategy: Strategy,
        *,
        engine: str = "auto",
        check_finite: bool = False,
        like: Wrapped | None = None,
    ) -> None:
        backbone = adapt(base)
        engines = pick_engine(engine)
        info = backbone.info
        strategy.check(info)
        stem = backbone.stem_macs()
        strategy = fitted(strategy, info, stem)
        given = {} if like is None else like._learned_in(strategy)
        built = {n: given[n] if n in given else getattr(strategy, n).build(info) for n in _BUILT}
        plans = plan_layers(strategy, info, stem, built)
        pads = any(plan.adaptive for plan in plans)
        if pads:
            check_padded(backbone, strategy)
        super().__init__(base)
        self.strategy = strategy
        self.check_finite = check_finite
        self.backbone = backbone
        self._engine = engine
        self._info, self._stem, self._pads = info, stem, pads
        self._plans: dict[tuple[tuple[int, int], int], tuple[LayerPlan, ...]] = {
            (cast(tuple[int, int], info.grid), info.num_patches): plans
        }
        self._runner = Runner(backbone, strategy, built, engines)
        learned = {k: m for k, m in built.items() if isinstance(m, nn.Module)}
        if learned:
            self.parts = nn.ModuleDict(learned)
            weight = next(base.parameters())
            self.parts.to(device=weight.device, dtype=weight.dtype)
        if new := [name for name in learned if name not in given]:
            warnings.warn(
                f"{', '.join(new)} of {strategy!r}: weights that were never trained. "
                "Fine-tune them, or load trained ones with load_state_dict or tokenred.load.",
                UntrainedPartWarning,
                stacklevel=3,
            )

    # ---------------------------------------------------------------- running

    def _start(
        self, images: Tensor, span: Span = no_span, *, checked: bool = False
    ) -> tuple[TokenState, tuple[LayerPlan, ...]]:
        if not checked:
            self.backbone.check_images(images)
        if self.check_finite:
            check_finite(images)
        grid = self.backbone.grid_of(images.shape[2], images.shape[3])
        with span("embed"):
            adds = self.strategy.embedding.adds
            more = cast(Callable[..., Tensor], self._runner.parts["embedding"]) if adds else None
            embedded = embed(self.backbone, images, grid, more)
        plans = self._plan(grid, embedded.index.shape[1])
        graph = None
        if needs_graph(self.strategy, [plan.count for plan in plans]):
            build = cast(Callable[..., Any], self._runner.parts["graph"])
            with span("graph"):
                graph = build(embedded.x0, grid)
                # Every block asks it; a builder of a notebook may give none at all.
                graph = None if graph is None else graph.with_columns()
        return TokenState(
            x=embedded.x,
            index=embedded.index,
            num_prefix=self._info.num_prefix,
            grid=grid,
            graph=graph,
            cls_index=self._info.cls_index,
            positions=embedded.positions,
        ), plans

    def _plan(self, grid: tuple[int, int], tokens: int) -> tuple[LayerPlan, ...]:
        key = (grid, tokens)
        if key not in self._plans:
            info = self._info.at(grid)
            self.strategy.check(info)
            info = info.with_tokens(tokens)
            self._plans[key] = plan_layers(self.strategy, info, self._stem, self._runner.parts)
        return self._plans[key]

    def _run(self, images: Tensor) -> TokenState:
        state, plans = self._start(images)
        return self._runner(state, plans)

    def _run_recorded(self, images: Tensor) -> tuple[TokenState, Trace]:
        state, plans = self._start(images)
        recorder = Recorder(state)
        state = self._runner(state, plans, recorder=recorder)
        return state, recorder.trace(state)

    def _run_noted(
        self,
        images: Tensor,
        layers: Collection[int],
        last: int | None,
        owners: bool,
        *,
        checked: bool = False,
    ) -> tuple[TokenState, Origins]:
        """The state after the blocks, up to ``last``, and the tokens after some of them."""
        state, plans = self._start(images, checked=checked)
        origins = Origins(state, layers, owners=owners, masks=self.strategy.selector.masks)
        return self._runner(state, plans, last=last, recorder=origins), origins

    def _features(self, state: TokenState) -> Tensor:
        """The tokens after the norm, which carry their weights along for `forward_head`."""
        features, weight = self.backbone.norm(state.x), self._weight(state)
        if weight is not None and not torch.compiler.is_compiling():
            setattr(features, _WEIGHT, weight)
        return features

    def _logits(self, state: TokenState, features: Tensor | None = None) -> Any:
        """What the head makes of the tokens."""
        features = self.backbone.norm(state.x) if features is None else features
        weight = self._weight(state)
        if weight is None:
            return self.backbone.head(features)
        return self.backbone.head(features, weight=weight)

    def _weight(self, state: TokenState) -> Tensor | None:
        """How often each token counts in the head; None where all count alike."""
        pooling = self.backbone.pooling
        weight = None
        if self.strategy.selector.masks and "mask" in state.memory:
            weight = state.memory["mask"]
        elif state.size is not None and self._runner.weighs:
            return state.size
        elif state.size is not None and self._pads:
            weight = (state.size > 0).to(state.size.dtype)
        if weight is not None and pooling == "unknown":
            raise BackboneError(
                f"the head of {self._info.name} cannot be told to leave tokens out, which training "
                "with masked tokens needs. Inference is not concerned. Use a model that pools by "
                "token, average, maximum or timm's AttentionPoolLatent."
            )
        return None if pooling == "token" else weight

    # ---------------------------------------------------------------- about it

    def cost(self, image_size: tuple[int, int] | None = None) -> Cost:
        """What one image costs, block by block, at the token counts that run.

        Args:
            image_size: (height, width); None for the model's own.

        Raises:
            InputError: for a size that images of this model cannot have.
        """
        info, stem = self._info, self._stem
        if image_size is None:
            plans = next(iter(self._plans.values()))
        else:
            self.backbone.check_size(*image_size)
            grid = self.backbone.grid_of(*image_size)
            info, stem = info.at(grid), self.backbone.stem_macs(image_size)
            plans = self._plan(grid, info.num_patches)
        counts = [plan.count for plan in plans[: len(self.backbone.blocks)]]
        return strategy_cost(self.strategy, info, counts, stem)

    @property
    def info(self) -> ModelInfo:
        """The base model as the parts see it."""
        return self._info

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The attention engines, in the order in which they are tried."""
        return self._runner.engines

    def _learned_in(self, other: Strategy) -> dict[str, nn.Module]:
        """Learned parts that another strategy has as well."""
        parts = self.parts.items() if "parts" in self._modules else ()
        return {n: m for n, m in parts if getattr(self.strategy, n) == getattr(other, n)}

    def _take_base_as_it_is(self) -> None:
        """After blocks or the head of the base went: the blocks that stay keep their plans."""
        self._adopt()
        self.backbone = adapt(self.base)
        self._runner = replace(self._runner, backbone=self.backbone)
        # Schedules and routes go by the depth that they were made for.
        self._info = replace(self.backbone.info, blocks=self._info.blocks)
