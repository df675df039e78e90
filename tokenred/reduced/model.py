"""`ReducedViT`: a vision transformer that runs with fewer tokens, from images to logits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenred.attention import AttentionStat, Engine, pick_engine
from tokenred.backbones import Backbone, adapt
from tokenred.backbones.hooks import Call, has_hooks
from tokenred.core.capture import check_capture, not_scriptable
from tokenred.core.errors import BackboneError, ConfigError, InputError
from tokenred.core.info import ModelInfo
from tokenred.core.part import check_choice
from tokenred.core.state import TokenState
from tokenred.reduced.cost import Cost
from tokenred.reduced.kept import FILLS, KeptTokens
from tokenred.reduced.loop import Runner
from tokenred.reduced.recorder import AliveCounts, Origins, Recorder, Span, no_span
from tokenred.reduced.setup import LiveModel
from tokenred.reduced.trace import Trace
from tokenred.strategies.schedules import Budget
from tokenred.strategies.specs import StrategyLike, parse_spec
from tokenred.strategies.strategy import Strategy

# The attribute under which tokens carry their weights to the head.
_WEIGHT = "_pooling_weight"


class ReducedViT(LiveModel):
    """A vision transformer with a token-reduction strategy. Created by `wrap` and `with_strategy`.

    Keeps the model's contract: ``forward``, ``forward_features``, ``forward_head``,
    ``forward_intermediates``; the model's other attributes are available on this object too.

    Attributes:
        base: the model.
        strategy: the strategy, with its budget resolved.
        engines: the attention engines, in the order in which they are tried.
        check: whether what takes time is checked as well, see `wrap`.
        prepare: applied to the images before anything else, or None; ``prepare.size`` gives the
            (height, width) after it.
    """

    engines: tuple[Engine, ...] = ()
    prepare: Any = None

    def __init__(
        self,
        base: nn.Module,
        strategy: Strategy,
        *,
        engine: str = "auto",
        check: bool = False,
        like: ReducedViT | None = None,
    ) -> None:
        engines = pick_engine(engine)
        super().__init__(base, strategy, {} if like is None else like._learned_in(strategy))
        self.check = check
        self.engines, self._engine = engines, engine

    def with_strategy(self, strategy: StrategyLike) -> ReducedViT:
        """The same model and weights under another strategy.

        Learned parts that both strategies have, equally configured, are shared as well.
        """
        return type(self)(
            self.base,
            resolved(self.base, strategy),
            engine=self._engine,
            check=self.check,
            like=self,
        )

    def _run(
        self,
        images: Tensor,
        recorder: Recorder | None = None,
        last: int | None = None,
        *,
        span: Span = no_span,
        engines: tuple[Engine, ...] | None = None,
        checked: bool = False,
    ) -> TokenState:
        """The tokens after block ``last``; the images are checked first."""
        setup = self._refresh()
        if self.prepare is not None:
            images = self.prepare(images)
        check_capture(images, setup.pads)
        if not checked:
            setup.backbone.check_images(images)
        if self.check:
            _check_finite(images)
        runner = Runner(setup, engines or self.engines, span, recorder, self.check)
        return runner(images, last)

    def _origins(self, layers: Collection[int], owners: bool) -> Origins:
        return Origins(layers, owners=owners, masks=self._setup.masks)

    def _features(self, state: TokenState) -> Tensor:
        """The tokens after the norm, which carry their weights for `forward_head`."""
        features: Tensor = self._finished(state)
        weight = self._setup.weight(state)
        if weight is not None and not torch.compiler.is_compiling():
            setattr(features, _WEIGHT, weight)
        return features

    def _logits(self, state: TokenState) -> Any:
        return _head(self._setup.backbone, self._finished(state), self._setup.weight(state))

    def _finished(self, state: TokenState) -> Any:
        backbone = self._setup.backbone
        return backbone.features(backbone.norm(state.x), state.token_grid)

    def forward(self, images: Float[Tensor, "b ch H W"]) -> Any:
        """Logits, ``(b, classes)``, or whatever the model's head returns."""
        call = Call(self.base, inside=False) if has_hooks(self.base) else None
        images = images if call is None else call.enter(images)
        if "forward_features" in self.__dict__ or "forward_head" in self.__dict__:
            result = self.forward_head(self.forward_features(images))
        else:
            result = self._logits(self._run(images))
        return result if call is None else call.leave(result)

    def forward_features(
        self, images: Float[Tensor, "b ch H W"], *, unreduce: bool = False, fill: str = "last"
    ) -> Float[Tensor, "b ..."]:
        """The remaining tokens, prefix first, after the final norm, ``(b, N, c)``.

        Of a model with a neck (SAM) its map, ``(b, c, rows, columns)``, which the head takes, too.
        With ``unreduce``, all N0 image tokens in raster order, as from the dense model: each patch
        has the token that owns it, and ``fill`` is for patches that none owns
        (`KeptTokens.unreduce`). The head needs the tokens without ``unreduce``.
        """
        if not unreduce:
            return self._features(self._run(images))
        check_choice(self, "fill", fill, FILLS)
        kept = self.kept_tokens(images, owners=True)
        full = torch.cat((kept.prefix, kept.unreduce(fill)), dim=1)
        return self.backbone.features(full, kept.grid)  # type: ignore[no-any-return]

    def forward_head(
        self,
        x: Float[Tensor, "b ..."],
        pre_logits: bool = False,
        *,
        weight: Float[Tensor, "b N"] | None = None,
    ) -> Any:
        """Pooling and classifier over the remaining tokens.

        Args:
            x: what `forward_features` returns.
            pre_logits: return the pooled features instead.
            weight: how often each token counts in an average: its size if the fuser conserves
                sizes, 0 for padding. The output of `forward_features` carries its own weights,
                unless it was compiled or changed by another operation; then all tokens count
                equally.
        """
        weight = getattr(x, _WEIGHT, None) if weight is None else weight
        return _head(self.backbone, x, weight, pre_logits)

    def forward_train(self, images: Float[Tensor, "b ch H W"]) -> tuple[Any, dict[str, Tensor]]:
        """Logits, and what losses need: ``features``, ``index``, and what the parts remember.

        Shapes:
            features: ``(b, N, c)`` final tokens after the norm; index: ``(b, n)`` their positions;
            for a model with a classifier for each token (LV-ViT), ``cls_logits (b, classes)`` and
            ``token_logits (b, n, classes)``.
        """
        state = self._run(images)
        features = self.backbone.norm(state.x)
        aux = dict(state.memory) | {"features": features, "index": state.index}
        if (both := self.backbone.logits_apart(features)) is not None:
            aux |= zip(("cls_logits", "token_logits"), both, strict=True)
        return self._logits(state), aux

    def run_with_trace(
        self, images: Float[Tensor, "b ch H W"], attention: str | bool = False
    ) -> tuple[Any, Trace]:
        """Logits, and a record of what happened to the tokens.

        With ``attention`` it also contains the attention maps, for `Trace.attention`: their
        ``"mean"`` over heads (or True), or all ``"heads"``. All blocks then compute whole maps, and
        the trace keeps ``b·N²`` numbers for each, ``h`` times as many with ``"heads"``.

        Raises:
            BackboneError: if a block cannot be opened to record its map.
        """
        check_choice(self, "attention", attention, (False, True, "mean", "heads"))
        mean = AttentionStat.map("mean") if attention else None
        wanted = AttentionStat.maps() if attention == "heads" else mean
        trace = Trace(wanted, self.strategy.theta)
        return self._logits(self._run(images, trace)), trace

    def run_with_spans(
        self,
        images: Float[Tensor, "b ch H W"],
        span: Span,
        engines: tuple[Engine, ...] | None = None,
    ) -> Any:
        """Logits, with ``span(phase)`` entered around every phase, to see where the time goes.

        The phases are `tokenred.reduced.recorder.PHASES`; ``engines`` replace the model's attention
        engines.
        """
        state = self._run(images, span=span, engines=engines)
        with span("head"):
            return self._logits(state)

    @torch.no_grad()
    def alive_counts(self, images: Float[Tensor, "b ch H W"]) -> Int[Tensor, "b layers_and_1"]:
        """Image tokens of each image before the first block and after each one, without padding."""
        counts = AliveCounts()
        self._run(images, counts)
        return torch.stack(counts.alive, dim=1)

    def kept_tokens(
        self,
        images: Float[Tensor, "b ch H W"],
        *,
        layer: int = -1,
        norm: bool = True,
        owners: bool = False,
    ) -> KeptTokens:
        """The remaining tokens, with their positions on the grid and their sizes.

        Args:
            images: a batch.
            layer: the block after which to take them, negative from the end; later blocks do not
                run.
            norm: apply the final norm.
            owners: record which token owns each patch, so that `KeptTokens.unreduce` gives each
                patch the token that absorbed it, and lost patches their own last feature.

        Raises:
            ConfigError: for a block that does not exist.
        """
        (at,) = block_numbers([layer], len(self.backbone.blocks))
        origins = self._origins([at], owners)
        self._run(images, origins, at)
        return origins.kept(at, self.backbone.norm if norm else None)

    def forward_intermediates(
        self,
        images: Float[Tensor, "b ch H W"],
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        *,
        unreduce: bool = True,
        fill: str = "last",
    ) -> Any:
        """Features of several blocks, with the same arguments as timm's method.

        Each has all N0 image tokens: a patch has the token that owns it. There are two more
        arguments: ``unreduce=False`` returns each block's own, fewer, tokens (smaller NCHW
        maps if they form a rectangle), and ``fill`` (`KeptTokens.unreduce`) is for patches that no
        token owns. The final features, if requested, are those of `forward_features`.

        Raises:
            ConfigError: for an unknown format, a block that does not exist, or maps of tokens that
                form no rectangle.
        """
        check_choice(self, "output_fmt", output_fmt, ("NCHW", "NLC"))
        check_choice(self, "fill", fill, FILLS)
        taken = block_numbers(indices, len(self.backbone.blocks))
        if output_fmt == "NCHW" and not unreduce:
            check_maps(self, taken)
        origins = self._origins(taken, unreduce)
        state = self._run(images, origins, max(taken) if stop_early else None)
        kept = [origins.kept(layer, self.backbone.norm if norm else None) for layer in taken]
        neck = self.backbone.neck if norm else None
        if output_fmt == "NCHW" or neck is not None:
            found = [tokens.dense(fill, unreduce=unreduce) for tokens in kept]
            found = found if neck is None else [neck(map_) for map_ in found]
            found = found if output_fmt == "NCHW" else [m.flatten(2).transpose(1, 2) for m in found]
        else:
            found = [tokens.unreduce(fill) if unreduce else tokens.tokens for tokens in kept]
        prefixes = [tokens.prefix for tokens in kept]
        with_prefix = return_prefix_tokens and state.num_prefix > 0
        if output_dict:
            result: dict[str, Any] = {"image_intermediates": found}
            if with_prefix:
                result["image_intermediates_prefix"] = prefixes
            if not intermediates_only:
                result["image_features"] = self._features(state)
            return result
        listed: Any = list(zip(found, prefixes, strict=True)) if with_prefix else found
        return listed if intermediates_only else (self._features(state), listed)

    def get_intermediate_layers(
        self,
        images: Float[Tensor, "b ch H W"],
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> Any:
        """`forward_intermediates` under DINO's name and arguments."""
        fmt, prefix = "NCHW" if reshape else "NLC", return_prefix_tokens
        return self.forward_intermediates(
            images, n, prefix, norm, output_fmt=fmt, intermediates_only=True
        )

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks that these features do not need, as timm does, from the base too.

        The remaining blocks do what they did before: schedules keep using the old depth. A strategy
        applied afterwards uses the new depth.

        Returns the blocks of the features.

        Raises:
            BackboneError: if the base cannot be pruned.
        """
        prune = getattr(self.base, "prune_intermediate_layers", None)
        if prune is None:
            raise BackboneError(
                f"{type(self.base).__name__} has no prune_intermediate_layers; use "
                "forward_intermediates(…, stop_early=True), which runs only the blocks it needs."
            )
        info = self.info
        block_numbers(indices, len(self.backbone.blocks))
        taken: list[int] = prune(indices, prune_norm, prune_head)
        left = tuple(block.whole for block in adapt(self.base).blocks)
        self._setup = replace(self._setup, pruned=(left, info.blocks))
        self._refresh(look=True)
        return taken

    def cost(
        self, image_size: tuple[int, int] | None = None, alive: Sequence[int] | None = None
    ) -> Cost:
        """The cost of one image, block by block, at the token counts that run.

        Args:
            image_size: (height, width); None for the model's own.
            alive: an image's row of `alive_counts`, if the image decides how many tokens remain.
                All rows of a block's attention are computed before its tokens are chosen, so they
                count. Without it, such a model is given its maximum cost.

        Raises:
            InputError: for an image size that the model does not accept, and for impossible counts.
        """
        counts = None if alive is None else [int(count) for count in alive]
        depth = len(self.backbone.blocks)
        grows = counts is not None and sorted(counts, reverse=True) != counts
        if counts is not None and (grows or len(counts) != depth + 1):
            raise InputError(
                f"expected {depth + 1} counts that never increase, before the first block and "
                f"after each, got {counts}."
            )
        if image_size is not None and self.prepare is not None:
            image_size = self.prepare.size(image_size)
        return self._refresh(look=True).cost(image_size, counts)

    @property
    def backbone(self) -> Backbone:
        """The adapter of the base model as it is now."""
        return self._refresh().backbone

    @property
    def info(self) -> ModelInfo:
        """The base model as the parts see it."""
        return self._refresh(look=True).info

    def __repr__(self) -> str:
        cost = self.cost()
        whole = ReducedViT(self.base, Strategy.dense()).cost().gmacs
        share = f"{cost.gmacs:.3g} of {whole:.3g} GMACs ({cost.gmacs / whole:.1%}"
        schedules = [step.schedule for step in self.strategy.steps]
        budgets = {s.gmacs / whole: None for s in schedules if isinstance(s, Budget)}
        share += "".join(f"; budget {most:.1%}" for most in budgets) + ")"
        told = "\n".join((str(cost), share, *self.strategy.unused))
        return f"ReducedViT({self._setup.info.name},\n  {self.strategy!r}\n)\n{told}"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "r" and "base" in self.__dict__ and not hasattr(self, name):
            # This is how ToMe's patch is set; here nothing would read it.
            raise ConfigError(
                f"a reduced model has no r to set. Use model.with_strategy('tome:r={value}'), "
                "which shares the weights."
            )
        super().__setattr__(name, value)

    def _replicate_for_data_parallel(self) -> Any:
        # Its copies would share one base and set their parameters on it.
        raise BackboneError(
            "DataParallel cannot copy a reduced model. Use DistributedDataParallel with one "
            "process per GPU (torchrun or accelerate launch)."
        )

    def __prepare_scriptable__(self) -> None:
        raise not_scriptable()


def resolved(base: nn.Module, strategy: StrategyLike) -> Strategy:
    """The strategy meant by a name or text, for this model if it depends on its cost."""
    spec = parse_spec(strategy)
    if spec.share is None:
        return spec.strategy
    return spec.resolve(ReducedViT(base, Strategy.dense()).cost().gmacs)


def block_numbers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """The requested blocks, ascending: all, that many of the last ones, or those of a list.

    Raises:
        ConfigError: for a block that does not exist, and for no blocks.
    """
    if indices is None or isinstance(indices, int):
        last = depth if indices is None else indices
        indices = range(depth - last, depth) if 0 < last <= depth else ()
    if not indices or [i for i in indices if not -depth <= i < depth]:
        raise ConfigError(
            f"blocks {list(indices) or 'none'} were requested; the model has blocks 0 to "
            f"{depth - 1}."
        )
    return sorted({i % depth for i in indices})


def check_maps(model: ReducedViT, blocks: Sequence[int]) -> None:
    """Refuse maps of the tokens after these blocks where they form no rectangle."""
    setup = model._refresh()
    layers = setup.plan(setup.info.grid, setup.info.num_patches).layers
    if without := [block for block in blocks if layers[block].token_grid is None]:
        raise ConfigError(
            f"the tokens after blocks {without} form no rectangle, and so no NCHW map. Pass "
            "output_fmt='NLC' with unreduce=False, omit unreduce=False, or use a method that keeps "
            "a rectangle, such as cubistmerge."
        )


def _head(backbone: Backbone, x: Tensor, weight: Tensor | None, pre_logits: bool = False) -> Any:
    # An adapter whose pooling is unknown takes no weights.
    given = {} if weight is None else {"weight": weight}
    return backbone.head(x, pre_logits=pre_logits, **given)


def _check_finite(images: Float[Tensor, "b ch H W"]) -> None:
    finite = torch.isfinite(images)
    if not bool(finite.all()):
        bad = (~finite).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise InputError(f"images {bad} of the batch contain NaN or infinite values. Check them.")
