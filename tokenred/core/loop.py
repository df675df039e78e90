"""The block loop: tokens through one block, with what the plan says happens in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenred.attention import AttentionStats, Engine, Need, Request, attend, size_bias
from tokenred.backbones.base import Backbone, BlockAnatomy
from tokenred.core.errors import PartError
from tokenred.core.layers import LayerPlan
from tokenred.core.part import Part
from tokenred.core.plan import Strategy
from tokenred.core.spans import Span, no_span
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.core.trace import Recorder

__all__ = ["Runner"]

_NOTHING = AttentionStats()


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs the blocks of a backbone under a strategy.

    Attributes:
        backbone: the adapter of the model.
        strategy: the method, as written.
        parts: the method's selector, fuser and route as they run (built for this model).
        engines: attention engines, to be tried in order.
        span: told of every phase of a forward.
    """

    backbone: Backbone
    strategy: Strategy
    parts: Mapping[str, Part | nn.Module]
    engines: tuple[Engine, ...]
    span: Span = no_span

    def __call__(
        self,
        state: TokenState,
        plans: tuple[LayerPlan, ...],
        *,
        last: int | None = None,
        recorder: Recorder | None = None,
    ) -> TokenState:
        """The state after the blocks, up to ``last`` where one is given."""
        blocks = self.backbone.blocks if last is None else self.backbone.blocks[: last + 1]
        save_memory = self.backbone.checkpoint_blocks and torch.is_grad_enabled()
        for layer, (block, plan) in enumerate(zip(blocks, plans, strict=False)):
            state = replace(state, layer=layer)
            if save_memory:
                # Bound now: the backward runs the block again, long after this loop.
                state = checkpoint(self._through, block, plan, state, recorder, use_reentrant=False)
            else:
                state = self._through(block, plan, state, recorder)
            if recorder is not None:
                recorder.block(state)
        return state

    def _through(
        self, block: BlockAnatomy, plan: LayerPlan, state: TokenState, recorder: Recorder | None
    ) -> TokenState:
        before_block = self.strategy.where == "before_block"
        if plan.count and before_block:
            state = self._reduce(state, _NOTHING, plan.count, recorder)
        if plan.active is None:
            return self._block(block, plan, state, recorder)[0]
        before, route = state, self.parts["route"]
        with self.span("select"):
            heads = block.heads(state.x)
            preview = AttentionStats(heads.stats(self.strategy.route.preview, state))
            active, resting = route.split(before, preview, plan.active)  # type: ignore[union-attr,operator]
        after, attention = self._block(block, plan, active, recorder)
        with self.span("fuse"):
            return route.join(before, after, resting, attention)  # type: ignore[union-attr,operator,no-any-return]

    def _block(
        self, block: BlockAnatomy, plan: LayerPlan, state: TokenState, recorder: Recorder | None
    ) -> tuple[TokenState, AttentionStats]:
        """Attention, reduction, MLP."""
        strategy = self.strategy
        bias = strategy.proportional_attention and state.size is not None
        count = plan.count if strategy.where == "after_attention" else 0
        if not (bias or count or plan.needs or plan.edits or strategy.theta < 1):
            # Nothing to see and nothing to change: the model's own block, at its own speed.
            with self.span("block"):
                return replace(state, x=block.block(state.x)), _NOTHING
        record_kept = recorder is not None and strategy.theta < 1
        request = Request(
            needs=(*plan.needs, Need.kept()) if record_kept else plan.needs,
            key_bias=size_bias(state.size) if bias and state.size is not None else None,
            theta=strategy.theta,
            threshold=strategy.threshold,
            reference=strategy.reference,
            edits=plan.edits,
        )
        with self.span("heads"):
            heads = block.heads(state.x)
        with self.span("attention"):
            out, attention = attend(heads, request, state, self.engines)
        with self.span("project"):
            state = replace(state, x=block.after_attention(state.x, out, heads))
        if recorder is not None and record_kept:
            recorder.sparsified(attention[Need.kept()] - strategy.theta)
        if count:
            state = self._reduce(state, attention, count, recorder)
        with self.span("mlp"):
            return replace(state, x=block.after_mlp(state.x)), attention

    def _reduce(
        self, state: TokenState, attention: AttentionStats, count: int, recorder: Recorder | None
    ) -> TokenState:
        selector: Callable[..., Selection] = self.parts["selector"]  # type: ignore[assignment]
        fuser: Callable[..., TokenState] = self.parts["fuser"]  # type: ignore[assignment]
        if state.size is None and self.tracks_size:
            state = replace(state, size=_ones(state.x))
        with self.span("select"):
            selection = selector(state, attention, count)
        with self.span("fuse"):
            after = fuser(state, selection, state.graph, attention)
        expected = state.num_tokens - count + self.strategy.fuser.extra
        if after.num_tokens != expected or after.index.shape[1] != expected:
            raise PartError(
                f"{type(fuser).__name__} must leave {expected} image tokens of {state.num_tokens} "
                f"when {count} go, got {after.num_tokens} (index of {after.index.shape[1]})."
            )
        if recorder is not None:
            recorder.reduction(state, selection, attention, fuser)  # type: ignore[arg-type]
        return after

    @property
    def tracks_size(self) -> bool:
        """Whether anything reads token sizes."""
        return self.strategy.proportional_attention or self.strategy.fuser.uses_size


def _ones(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=at_least_fp32(x.dtype), device=x.device)
