"""A model and a strategy put together: parts built, blocks planned, ready to run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokenred.attention import AttentionStat, Engine, pick_engine
from tokenred.backbones import Backbone, adapt
from tokenred.backbones.shared import SharesBase
from tokenred.core.capture import check_capture, fixed, not_scriptable
from tokenred.core.errors import BackboneError, UntrainedPartWarning
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.core.state import TokenState
from tokenred.reduced.cost import Cost
from tokenred.reduced.loop import Runner
from tokenred.reduced.origins import Origins
from tokenred.reduced.plan import LayerPlan, needs_graph
from tokenred.reduced.setup import Setup
from tokenred.reduced.spans import Span, no_span
from tokenred.reduced.start import check_embedded, check_finite, embed
from tokenred.reduced.trace import Recorder, Trace
from tokenred.strategies.strategy import Strategy

__all__ = ["Wrapped"]

# Under this name tokens carry their weights to the head.
_WEIGHT = "_pooling_weight"


class Wrapped(SharesBase):
    """What `ReducedViT` is made of; that class says what it gives."""

    parts: nn.ModuleDict

    def __init__(
        self,
        base: nn.Module,
        strategy: Strategy,
        *,
        engine: str = "auto",
        check_finite: bool = False,
        like: Wrapped | None = None,
    ) -> None:
        engines = pick_engine(engine)
        given = {} if like is None else like._learned_in(strategy)
        setup = Setup.of(base, strategy, given)
        learned = setup.learned
        if learned and hasattr(base, "parts"):
            raise BackboneError(
                f"{type(base).__name__} has something called parts, where the weights of "
                f"{', '.join(learned)} would go. Rename it."
            )
        super().__init__(base)
        self.check_finite = check_finite
        self._engine = engine
        self._runner = Runner(setup.backbone, setup.strategy, setup.parts, engines)
        self._place: Any = None
        self._use(setup)
        self._refresh()
        self._runner.check_blocks(setup.own_plans)
        if new := [name for name in learned if name not in given]:
            warnings.warn(
                f"{', '.join(new)} of {strategy!r}: weights that were never trained. "
                "Fine-tune them, or load trained ones with load_state_dict or tokenred.load.",
                UntrainedPartWarning,
                stacklevel=3,
            )

    # ---------------------------------------------------------------- as it is now

    def _use(self, setup: Setup) -> None:
        self._setup = setup
        self.strategy = setup.strategy
        backbone, parts = setup.backbone, setup.parts
        self._runner = replace(
            self._runner, backbone=backbone, strategy=setup.strategy, parts=parts
        )
        if "parts" in self._modules:
            self.parts.update(setup.learned)
        elif learned := setup.learned:
            self.parts = nn.ModuleDict(learned)

    def _follow(self) -> Setup:
        """Learned parts are those that ``parts`` holds, and are where and of the type the base is.

        Raises:
            BackboneError: for one that is gone.
        """
        setup, held = self._setup, self.parts._modules
        for name, part in setup.learned.items():
            if name not in held:
                raise BackboneError(f"parts.{name} was deleted, without which nothing runs.")
            if held[name] is not part:
                swapped = setup.parts[name].with_network(self.parts[name])
                setup = replace(setup, parts={**setup.parts, name: swapped})
        weight = next(self.base.parameters())
        place = (weight.device, weight.dtype)
        if self._place != place:
            self.parts.to(*place)
            self._place = place
        return setup

    def _refresh(self, look: bool = False) -> Setup:
        """What runs, after changes of the model were taken in.

        Args:
            look: at weights, too, whose shapes a forward does not go by and costs do.

        Raises:
            TokenredError: where the strategy does not fit the model any more; nothing is changed.
        """
        if torch.compiler.is_dynamo_compiling():
            # The compiler runs this now, and never in the compiled code: there it has its guards.
            self._refresh_untraced()
            self._setup.watch.guard()
            return self._setup
        self._sync()
        if look or not self._setup.watch.holds():
            setup = self._setup.again()
            if setup.info == self._setup.info and setup.stem == self._setup.stem:
                setup.plans.update(self._setup.plans)
            self._use(setup)
        if "parts" in self._modules and (setup := self._follow()) is not self._setup:
            self._use(setup)
        return self._setup

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _refresh_untraced(self) -> bool:
        self._refresh()
        return True

    # ---------------------------------------------------------------- running

    def _start(
        self, images: Tensor, span: Span = no_span, *, checked: bool = False
    ) -> tuple[TokenState, tuple[LayerPlan, ...]]:
        setup = self._refresh()
        backbone, info = setup.backbone, setup.info
        check_capture(images, setup.pads)
        if not checked:
            backbone.check_images(images)
        if self.check_finite:
            check_finite(images)
        grid = backbone.grid_of(images.shape[2], images.shape[3])
        with span("embed"):
            adds = self.strategy.embedding.adds
            more = cast(Callable[..., Tensor], self._runner.parts["embedding"]) if adds else None
            embedded = embed(backbone, images, grid, more)
        check_embedded(embedded, info)
        plans = setup.plan(grid, fixed(embedded.index.shape[1]))
        self._runner.check_blocks(plans)
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
            num_prefix=info.num_prefix,
            grid=grid,
            graph=graph,
            cls_index=info.cls_index,
            depth=info.depth,
            positions=embedded.positions,
        ), plans

    def _run(self, images: Tensor) -> TokenState:
        state, plans = self._start(images)
        return self._runner(state, plans)

    def _run_recorded(self, images: Tensor, look: AttentionStat | None) -> tuple[TokenState, Trace]:
        state, plans = self._start(images)
        recorder = Recorder(state, look)
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
        features, weight = self._setup.backbone.norm(state.x), self._weight(state)
        if weight is not None and not torch.compiler.is_compiling():
            setattr(features, _WEIGHT, weight)
        return features

    def _logits(self, state: TokenState, features: Tensor | None = None) -> Any:
        """What the head makes of the tokens."""
        features = self._setup.backbone.norm(state.x) if features is None else features
        weight = self._weight(state)
        if weight is None:
            return self._setup.backbone.head(features)
        return self._setup.backbone.head(features, weight=weight)

    def _weight(self, state: TokenState) -> Tensor | None:
        """How often each token counts in the head; None where all count alike."""
        pooling = self._setup.backbone.pooling
        weight = None
        if self.strategy.selector.masks and "mask" in state.memory:
            weight = state.memory["mask"]
        elif state.size is not None and self._runner.weighs:
            return state.size
        elif state.size is not None and self._setup.pads:
            weight = (state.size > 0).to(state.size.dtype)
        if weight is not None and pooling == "unknown":
            raise BackboneError(
                f"the head of {self._setup.info.name} cannot be told to leave tokens out, which "
                "training with masked tokens needs. Inference is not concerned. Use a model that "
                "pools by token, average, maximum or timm's AttentionPoolLatent."
            )
        return None if pooling == "token" else weight

    def __prepare_scriptable__(self) -> None:
        raise not_scriptable()

    # ---------------------------------------------------------------- about it

    def cost(self, image_size: tuple[int, int] | None = None) -> Cost:
        """What one image costs, block by block, at the token counts that run.

        Args:
            image_size: (height, width); None for the model's own.

        Raises:
            InputError: for a size that images of this model cannot have.
        """
        return self._refresh(look=True).cost(image_size)

    @property
    def backbone(self) -> Backbone:
        """The adapter of the base model as it is now."""
        return self._refresh().backbone

    @property
    def info(self) -> ModelInfo:
        """The base model as the parts see it."""
        return self._refresh(look=True).info

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The attention engines, in the order in which they are tried."""
        return self._runner.engines

    def _learned_in(self, other: Strategy) -> dict[str, nn.Module]:
        """Learned parts that another strategy has as well."""
        parts = self.parts.items() if "parts" in self._modules else ()
        return {n: m for n, m in parts if getattr(self.strategy, n) == getattr(other, n)}

    def _pruned(self, blocks: tuple[BlockInfo, ...]) -> None:
        """After blocks of the base went that were planned as these: those that stay keep plans."""
        left = tuple(block.whole for block in adapt(self.base).blocks)
        self._setup = replace(self._setup, pruned=(left, blocks))
        self._refresh(look=True)
