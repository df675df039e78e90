"""`ReducedViT`: a vision transformer that runs with fewer tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.attention import AttentionStat, Engine
from tokenred.backbones.calls import Call, has_hooks
from tokenred.core.errors import BackboneError, ConfigError
from tokenred.core.part import check_choice
from tokenred.reduced.intermediates import block_numbers, check_no_mask, forward_intermediates
from tokenred.reduced.kept import KeptTokens
from tokenred.reduced.plan import table
from tokenred.reduced.spans import Span
from tokenred.reduced.trace import Trace
from tokenred.reduced.unreduce import FILLS
from tokenred.reduced.wrapped import _WEIGHT, Wrapped
from tokenred.strategies.specs import StrategyLike, parse_spec
from tokenred.strategies.strategy import Strategy

__all__ = ["ReducedViT", "resolved"]


class ReducedViT(Wrapped):
    """A vision transformer with a token-reduction strategy. Made by `wrap` and `with_strategy`.

    Keeps the model's contract: ``forward``, ``forward_features``, ``forward_head``,
    ``forward_intermediates``; whatever else the model has is found on this object too.
    """

    @property
    def _like_me(self) -> type[ReducedViT]:
        """What `with_strategy` makes."""
        return ReducedViT

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "r" and "base" in self.__dict__ and not hasattr(self, name):
            # ToMe's patch is steered so; here nothing would read it.
            raise ConfigError(
                f"a reduced model has no r to set. Use model.with_strategy('tome:r={value}'), "
                "which shares the weights."
            )
        super().__setattr__(name, value)

    def _replicate_for_data_parallel(self) -> Any:
        # Its copies would share one base, and set their parameters on it.
        raise BackboneError(
            "DataParallel cannot copy a reduced model. Use DistributedDataParallel, one process a "
            "GPU (torchrun or accelerate launch)."
        )

    # ---------------------------------------------------------------- forward

    def forward(
        self,
        images: Float[Tensor, "b ch H W"],
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """Logits, ``(b, classes)``, or whatever the model's head returns. Masks are refused."""
        check_no_mask(attn_mask, is_causal)
        call = Call(self.base, inside=False) if has_hooks(self.base) else None
        images = images if call is None else call.enter(images)
        if "forward_features" in self.__dict__ or "forward_head" in self.__dict__:
            result = self.forward_head(self.forward_features(images))
        else:
            result = self._logits(self._run(images))
        return result if call is None else call.leave(result)

    def forward_features(
        self,
        images: Float[Tensor, "b ch H W"],
        *,
        unreduce: bool = False,
        fill: str = "last",
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "b N c"]:
        """The tokens that remain, prefix first, after the final norm.

        Args:
            images: a batch.
            unreduce: give all N0 image tokens in raster order, as the dense model does: each patch
                has the token that owns it. The head takes what comes without.
            fill: for patches of which nothing is left, see `KeptTokens.unreduce`.
            attn_mask, is_causal: timm's; refused with a `ConfigError`.
        """
        check_no_mask(attn_mask, is_causal)
        if not unreduce:
            return self._features(self._run(images))
        check_choice(self, "fill", fill, FILLS)
        kept = self.kept_tokens(images, owners=True)
        return torch.cat((kept.prefix, kept.unreduce(fill)), dim=1)

    def forward_head(
        self,
        x: Float[Tensor, "b N c"],
        pre_logits: bool = False,
        *,
        weight: Float[Tensor, "b N"] | None = None,
    ) -> Any:
        """Pooling and classifier over the tokens that remain.

        Args:
            x: tokens after the final norm, prefix first.
            pre_logits: the pooled features instead.
            weight: how often each token counts in an average: its size where the fuser conserves
                sizes, 0 for padding. What `forward_features` gives brings its own along, until
                another operation makes new tokens of it or a compiler has it; without one, all
                count alike.
        """
        weight = getattr(x, _WEIGHT, None) if weight is None else weight
        if weight is None:
            return self.backbone.head(x, pre_logits=pre_logits)
        return self.backbone.head(x, pre_logits=pre_logits, weight=weight)

    def run_with_trace(
        self, images: Float[Tensor, "b ch H W"], attention: str | bool = False
    ) -> tuple[Any, Trace]:
        """Logits, and the record of what became of the tokens.

        Args:
            images: a batch.
            attention: record the attention maps as well, for `Trace.attention`: ``"mean"`` (or
                True) over heads, or ``"heads"``. All blocks then hold whole maps, and the trace
                keeps ``b·N²`` numbers of each, ``h`` times as many with ``"heads"``.

        Raises:
            ConfigError: for another value.
            BackboneError: for maps of a block that cannot be opened.
        """
        check_choice(self, "attention", attention, (False, True, "mean", "heads"))
        look = (
            AttentionStat.maps()
            if attention == "heads"
            else AttentionStat.map("mean")
            if attention
            else None
        )
        state, trace = self._run_recorded(images, look)
        return self._logits(state), trace

    def run_with_spans(
        self,
        images: Float[Tensor, "b ch H W"],
        span: Span,
        engines: tuple[Engine, ...] | None = None,
    ) -> Any:
        """Logits, with ``span(phase)`` entered around every phase: see where the time goes.

        Args:
            images: a batch.
            span: gives a context manager for each name in `tokenred.reduced.spans.PHASES`.
            engines: attention engines to use in place of the model's own.
        """
        state, plans = self._start(images, span)
        runner = replace(self._runner, span=span, engines=engines or self._runner.engines)
        state = runner(state, plans)
        with span("head"):
            return self._logits(state)

    def forward_train(self, images: Float[Tensor, "b ch H W"]) -> tuple[Any, dict[str, Tensor]]:
        """Logits, and what losses need: ``features``, ``index``, and all that the parts remember.

        Shapes:
            features: ``(b, N, c)`` final tokens after the norm; index: ``(b, n)`` their positions;
            of a model with a classifier for each token (LV-ViT), ``cls_logits (b, classes)`` and
            ``token_logits (b, n, classes)``.
        """
        state = self._run(images)
        features = self.backbone.norm(state.x)
        aux = dict(state.memory) | {"features": features, "index": state.index}
        if (both := self.backbone.logits_apart(features)) is not None:
            aux |= zip(("cls_logits", "token_logits"), both, strict=True)
        return self._logits(state, features), aux

    # ---------------------------------------------------------------- features

    def kept_tokens(
        self,
        images: Float[Tensor, "b ch H W"],
        *,
        layer: int = -1,
        norm: bool = True,
        owners: bool = False,
    ) -> KeptTokens:
        """The tokens that remain, with their places on the grid and their sizes.

        Args:
            images: a batch.
            layer: after which block, negative from the end; the blocks after it do not run.
            norm: apply the final norm.
            owners: note who has which patch, so that `KeptTokens.unreduce` gives each patch the
                token that absorbed it, and lost patches their last own feature.

        Raises:
            ConfigError: for a block that does not exist.
        """
        (at,) = block_numbers([layer], len(self.backbone.blocks))
        _, origins = self._run_noted(images, [at], at, owners)
        return origins.kept(at, self.backbone.norm if norm else None)

    def forward_intermediates(
        self, images: Float[Tensor, "b ch H W"], *args: Any, **kw: Any
    ) -> Any:
        """Features of several blocks, argument by argument as timm's own.

        Each has all N0 image tokens: a patch has the token that owns it. Two arguments more:
        ``unreduce=False`` gives the tokens of the block, fewer in each (with
        ``output_fmt="NLC"``), and ``fill`` (`KeptTokens.unreduce`) is for patches of which nothing
        is left. The final features, where they are wanted, are those of `forward_features`.

        Raises:
            ConfigError: for an unknown format, a block that does not exist, or a mask.
        """
        return forward_intermediates(self, images, *args, **kw)

    def get_intermediate_layers(
        self,
        images: Float[Tensor, "b ch H W"],
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> Any:
        """`forward_intermediates` under DINO's name and arguments."""
        return self.forward_intermediates(
            images,
            n,
            return_prefix_tokens=return_prefix_tokens,
            norm=norm,
            output_fmt="NCHW" if reshape else "NLC",
            intermediates_only=True,
        )

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Throw away blocks that these features do not need, as timm does, in the base too.

        The blocks that stay do what they did: schedules go by the depth before. A strategy put on
        afterwards goes by the new depth.

        Returns:
            The blocks of the features.

        Raises:
            BackboneError: where the base cannot be pruned.
        """
        prune = getattr(self.base, "prune_intermediate_layers", None)
        if prune is None:
            raise BackboneError(
                f"{type(self.base).__name__} has no prune_intermediate_layers; use "
                "forward_intermediates(…, stop_early=True), which runs no block too many."
            )
        info = self.info
        block_numbers(indices, len(self.backbone.blocks))
        taken: list[int] = prune(indices, prune_norm, prune_head)
        self._pruned(info.blocks)
        return taken

    # ---------------------------------------------------------------- about it

    def with_strategy(self, strategy: StrategyLike) -> ReducedViT:
        """The same model and weights under another strategy.

        Learned parts that both strategies have, equally configured, are shared as well.
        """
        return self._like_me(
            self.base,
            resolved(self.base, strategy),
            engine=self._engine,
            check_finite=self.check_finite,
            like=self,
        )

    def __repr__(self) -> str:
        layers, info = table(self.cost(), self.info.num_prefix), self._setup.info
        return f"ReducedViT({info.name},\n  {self.strategy!r}\n)\n{layers}"


def resolved(base: nn.Module, strategy: StrategyLike) -> Strategy:
    """The strategy that is meant, for this model where it goes by its cost."""
    spec = parse_spec(strategy)
    if spec.share is None:
        return spec.strategy
    return spec.resolve(ReducedViT(base, Strategy.dense()).cost().gmacs)
