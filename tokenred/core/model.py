"""`wrap`: a model and a strategy become a `ReducedViT`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from tokenred.attention import Engine, pick_engine
from tokenred.backbones import adapt
from tokenred.backbones.shared import SharesBase
from tokenred.core.adaptive import check_padded
from tokenred.core.cost import Cost
from tokenred.core.errors import PartError, UntrainedPartWarning
from tokenred.core.info import ModelInfo
from tokenred.core.intermediates import forward_intermediates
from tokenred.core.layers import LayerPlan, needs_graph, plan_layers, strategy_cost, table
from tokenred.core.loop import Runner
from tokenred.core.plan import Strategy
from tokenred.core.spans import Span, no_span
from tokenred.core.start import check_finite, embed
from tokenred.core.state import TokenState
from tokenred.core.trace import Recorder, Trace

__all__ = ["ReducedViT", "wrap"]

# Parts that are built for the model.
_BUILT = ("selector", "fuser", "route", "embedding", "graph")


def wrap(
    model: nn.Module,
    strategy: Strategy | str,
    *,
    engine: str = "auto",
    check_finite: bool = False,
) -> ReducedViT:
    """Run a model with fewer tokens.

    The result shares the model's modules and parameters by reference, so training mode, device and
    weights are common to both; the model's code and its own forward stay as they are, also where a
    check fails.

    Args:
        model: a timm VisionTransformer (see `tokenred.backbones`), or a `ReducedViT`, whose base is
            then wrapped anew.
        strategy: a `Strategy`, or the name of a recipe with its defaults.
        engine: ``"auto"``, or an attention engine by name, see `tokenred.attention.pick_engine`.
        check_finite: refuse images with NaN or infinite values (reads them; not under compile).

    Raises:
        BackboneError: for a model that no adapter knows.
        ConfigError: for a part that does not fit the model.
        ScheduleError: for more tokens removed than there are.

    Warns:
        UntrainedPartWarning: for a part with weights, which are random until trained or loaded.
    """
    base = model.base if isinstance(model, ReducedViT) else model
    return ReducedViT(base, _resolved(strategy), engine=engine, check_finite=check_finite)


def _resolved(strategy: Strategy | str) -> Strategy:
    from tokenred.core.plan import strategy as recipe

    chosen = recipe(strategy) if isinstance(strategy, str) else strategy
    if not isinstance(chosen, Strategy):
        raise PartError(
            f"expected a Strategy or the name of a recipe, got {strategy!r}. "
            "Write tokenred.wrap(model, tokenred.strategy('gtp', P=8))."
        )
    return chosen


class ReducedViT(SharesBase):
    """A vision transformer with a token-reduction strategy. Made by `wrap` and `with_strategy`.

    Keeps the model's contract: ``forward``, ``forward_features``, ``forward_head``,
    ``forward_intermediates``; whatever else the model has is found on this object too.
    """

    def __init__(
        self,
        base: nn.Module,
        strategy: Strategy,
        *,
        engine: str = "auto",
        check_finite: bool = False,
        like: ReducedViT | None = None,
    ) -> None:
        backbone = adapt(base)
        engines = pick_engine(engine)
        info = backbone.info
        strategy.check(info)
        stem = backbone.stem_macs()
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

    # ---------------------------------------------------------------- forward

    def forward(self, images: Float[Tensor, "b ch H W"]) -> Any:
        """Logits, ``(b, classes)``, or whatever the model's head returns."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Float[Tensor, "b ch H W"]) -> Float[Tensor, "b N c"]:
        """The tokens that remain, prefix first, after the final norm."""
        return self._for_head(self._run(images))

    def forward_head(self, x: Float[Tensor, "b N c"], pre_logits: bool = False) -> Any:
        """Pooling and classifier over the tokens that remain."""
        return self.backbone.head(x, pre_logits=pre_logits)

    def run_with_trace(self, images: Float[Tensor, "b ch H W"]) -> tuple[Any, Trace]:
        """Logits, and the record of what became of the tokens."""
        state, trace = self._run_recorded(images)
        return self.forward_head(self._for_head(state)), trace

    def run_with_spans(
        self,
        images: Float[Tensor, "b ch H W"],
        span: Span,
        engines: tuple[Engine, ...] | None = None,
    ) -> Any:
        """Logits, with ``span(phase)`` entered around every phase: see where the time goes.

        Args:
            images: a batch.
            span: gives a context manager for each name in `tokenred.core.spans.PHASES`.
            engines: attention engines to use in place of the model's own.
        """
        runner = replace(self._runner, span=span, engines=engines or self._runner.engines)
        state, plans = self._start(images, span)
        state = runner(state, plans)
        with span("head"):
            return self.forward_head(self._for_head(state))

    def forward_train(self, images: Float[Tensor, "b ch H W"]) -> tuple[Any, dict[str, Tensor]]:
        """Logits, and what losses need: ``features``, ``index``, and all that the parts remember.

        Shapes:
            features: ``(b, N, c)`` final tokens after the norm; index: ``(b, n)`` their positions.
        """
        state = self._run(images)
        features = self.backbone.norm(state.x)
        aux = dict(state.memory) | {"features": features, "index": state.index}
        return self.forward_head(self._for_head(state, features)), aux

    def forward_intermediates(
        self, images: Float[Tensor, "b ch H W"], *args: Any, **kw: Any
    ) -> Any:
        """As timm's own: features of several blocks, on the full grid as NCHW.

        With ``output_fmt="NLC"`` each has the tokens of its block. Masks are refused.
        """
        return forward_intermediates(
            self.backbone, lambda last: self._run_recorded(images, last), *args, **kw
        )

    def _for_head(self, state: TokenState, features: Tensor | None = None) -> Tensor:
        """The tokens after the norm, as the head is to see them."""
        features = self.backbone.norm(state.x) if features is None else features
        if self.strategy.selector.masks and "mask" in state.memory:
            return self.backbone.leave_out(features, state.memory["mask"])
        if self._pads and state.size is not None:
            return self.backbone.leave_out(features, (state.size > 0).to(features.dtype))
        return features

    def _run(self, images: Tensor) -> TokenState:
        state, plans = self._start(images)
        return self._runner(state, plans)

    def _run_recorded(self, images: Tensor, last: int | None = None) -> tuple[TokenState, Trace]:
        state, plans = self._start(images)
        recorder = Recorder(state)
        state = self._runner(state, plans, last=last, recorder=recorder)
        return state, recorder.trace(state)

    def _start(
        self, images: Tensor, span: Span = no_span
    ) -> tuple[TokenState, tuple[LayerPlan, ...]]:
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
        return TokenState(
            x=embedded.x,
            index=embedded.index,
            num_prefix=self._info.num_prefix,
            grid=grid,
            graph=graph,
            cls_index=self._info.cls_index,
        ), plans

    def _plan(self, grid: tuple[int, int], tokens: int) -> tuple[LayerPlan, ...]:
        key = (grid, tokens)
        if key not in self._plans:
            info = self._info.at(grid)
            self.strategy.check(info)
            info = info.with_tokens(tokens)
            self._plans[key] = plan_layers(self.strategy, info, self._stem, self._runner.parts)
        return self._plans[key]

    # ---------------------------------------------------------------- about it

    def cost(self, image_size: tuple[int, int] | None = None) -> Cost:
        """What one image costs, block by block, at the token counts that run.

        Args:
            image_size: (height, width); None for the model's own.

        Raises:
            InputError: for a size that images of this model cannot have.
        """
        if image_size is None:
            counts = [plan.count for plan in next(iter(self._plans.values()))]
            return strategy_cost(self.strategy, self._info, counts, self._stem)
        self.backbone.check_size(*image_size)
        grid = self.backbone.grid_of(*image_size)
        info, stem = self._info.at(grid), self.backbone.stem_macs(image_size)
        counts = [plan.count for plan in self._plan(grid, info.num_patches)]
        return strategy_cost(self.strategy, info, counts, stem)

    @property
    def info(self) -> ModelInfo:
        """The base model as the parts see it."""
        return self._info

    def _learned_in(self, other: Strategy) -> dict[str, nn.Module]:
        """Learned parts that another strategy has as well."""
        parts = self.parts.items() if "parts" in self._modules else ()
        return {n: m for n, m in parts if getattr(self.strategy, n) == getattr(other, n)}

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The attention engines, in the order in which they are tried."""
        return self._runner.engines

    def with_strategy(self, strategy: Strategy | str) -> ReducedViT:
        """The same model and weights under another strategy.

        Learned parts that both strategies have, equally configured, are shared as well.
        """
        return ReducedViT(
            self.base,
            _resolved(strategy),
            engine=self._engine,
            check_finite=self.check_finite,
            like=self,
        )

    def __repr__(self) -> str:
        layers = table(self.cost(), self._info.num_prefix)
        return f"ReducedViT({self._info.name},\n  {self.strategy!r}\n)\n{layers}"
