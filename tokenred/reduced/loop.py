"""The block loop: tokens through one block, with what the plan says happens in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tokenred.attention import (
    QKV,
    AttentionSpec,
    AttentionStat,
    AttentionStats,
    Engine,
    Scratch,
    attend,
    size_bias,
)
from tokenred.backbones.base import Backbone, BlockAdapter
from tokenred.backbones.calls import call_of
from tokenred.core.capture import is_eager
from tokenred.core.errors import PartError
from tokenred.core.part import Part
from tokenred.core.replacing import replace
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.reduced.plan import LayerPlan
from tokenred.reduced.spans import Span, no_span
from tokenred.reduced.trace import Recorder
from tokenred.reduced.travel import Forward, LoopState
from tokenred.strategies.base import Fuser, Router, Selector
from tokenred.strategies.strategy import Strategy

__all__ = ["Runner"]

# Added to the logits of idle keys in a training form, as IdleViT does.
_IDLE = -1e5

_NOTHING = AttentionStats()


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs the blocks of a backbone under a strategy.

    Attributes:
        backbone: the adapter of the model.
        strategy: the method, as written.
        parts: the method's selector, fuser and router as they run (built for this model).
        engines: attention engines, to be tried in order.
        span: told of every phase of a forward.
    """

    backbone: Backbone
    strategy: Strategy
    parts: Mapping[str, Part]
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
        save_memory = torch.is_grad_enabled()
        save_all = save_memory and self.backbone.checkpoint_blocks
        reuses = not torch.is_grad_enabled() and is_eager()
        pads = any(plan.adaptive for plan in plans)
        forward = Forward(recorder, Scratch() if reuses else None, pads)
        travel = LoopState(state)
        for layer, (block, plan) in enumerate(zip(blocks, plans, strict=False)):
            travel = replace(travel, state=replace(travel.state, layer=layer))
            if save_all or (save_memory and block.checkpointed and self.opens(block, plan)):
                # Bound now: the backward runs the block again, long after this loop.
                travel = checkpoint(
                    self._through, block, plan, travel, forward, use_reentrant=False
                )
            else:
                travel = self._through(block, plan, travel, forward)
            if recorder is not None:
                recorder.block(self._together(travel))
        return self._together(travel)

    def opens(self, block: BlockAdapter, plan: LayerPlan) -> bool:
        """Whether a block is opened, and not called as a module."""
        planned = plan.opens_in_training if self.training else plan.opens
        return (planned and (block.attends or plan.reads)) or block.must_open(plan.fewer)

    def check_blocks(self, plans: tuple[LayerPlan, ...]) -> None:
        """Refuse blocks that have to be opened and cannot be, before anything runs.

        Raises:
            BackboneError: with the block, and what is in the way.
        """
        for block, plan in zip(self.backbone.blocks, plans, strict=False):
            if (block.closed or block.passed_by) and self.opens(block, plan):
                block.check_open(self.backbone.model)

    def _together(self, travel: LoopState) -> TokenState:
        """All tokens, those that idle among them."""
        if travel.before is None:
            return travel.state
        router = cast(Router, self.parts["router"])
        attention = travel.attention or _NOTHING
        return router.join(travel.before, travel.state, travel.resting, attention)

    def _through(
        self, block: BlockAdapter, plan: LayerPlan, travel: LoopState, forward: Forward
    ) -> LoopState:
        state, router = travel.state, cast(Router, self.parts["router"])
        if self.strategy.where == "before_block" and (plan.count or plan.adaptive):
            state = self._reduce(state, _NOTHING, plan, forward.recorder)
        if plan.active is None:
            state, attention = self._block(block, plan, state, forward)
            return LoopState(router.observe(state, attention) if plan.watched else state)
        if self.training and self.strategy.router.masks:
            return LoopState(self._masked(block, plan, state, forward))
        heads, before, resting = None, travel.before, travel.resting
        if plan.splits:
            before = state
            with self.span("select"):
                state, resting, heads = self._split(block, plan.active, state)
        state, attention = self._block(block, plan, state, forward, heads)
        apart = LoopState(router.observe(state, attention), before, resting, attention)
        if not plan.rejoins:
            return apart
        with self.span("fuse"):
            return LoopState(self._together(apart))

    def _split(
        self, block: BlockAdapter, count: int, state: TokenState
    ) -> tuple[TokenState, Mapping[str, Tensor], QKV | None]:
        """The tokens that pass, what rests, and the heads of those that pass, if they are known."""
        router = cast(Router, self.parts["router"])
        wanted = self.strategy.router.preview
        heads = block.quiet().qkv_of(state) if wanted else None
        preview = AttentionStats({} if heads is None else heads.stats(wanted, state))
        active, resting = router.split(state, preview, count)
        places = self.strategy.router.places(resting)
        # Hooks are to see the tokens that pass, and may change what they are.
        if heads is None or places is None or block.hooked:
            return active, resting, None
        return active, resting, heads.take(places)

    def _masked(
        self, block: BlockAdapter, plan: LayerPlan, state: TokenState, forward: Forward
    ) -> TokenState:
        """A block in the training form: all tokens pass, and the idle ones are put back."""
        assert plan.active is not None
        heads = block.quiet().qkv_of(state)
        mask, state = cast(Router, self.parts["router"]).mask(state, heads, plan.active)
        known = None if block.hooked else heads
        after, _ = self._block(block, plan, state, forward, known, _IDLE * (1 - mask))
        return replace(after, x=torch.where(mask[..., None] > 0, after.x, state.x))

    def _block(
        self,
        block: BlockAdapter,
        plan: LayerPlan,
        state: TokenState,
        forward: Forward,
        heads: QKV | None = None,
        idle: Float[Tensor, "b N"] | None = None,
    ) -> tuple[TokenState, AttentionStats]:
        """Attention, reduction, MLP; ``heads`` where they are known, ``idle`` to mask keys."""
        strategy, recorder = self.strategy, forward.recorder
        bias = idle
        # Of padding the size is 0: nobody attends to it, whatever the method makes of sizes.
        if state.size is not None and (strategy.proportional_attention or forward.pads):
            bias = size_bias(state.size) if idle is None else size_bias(state.size) + idle
        reduces = strategy.where == "after_attention" and (plan.count > 0 or plan.adaptive)
        score_mods = tuple(e for e in plan.score_mods if self.training or not e.in_training_only)
        asked = reduces or len(plan.requires) > 0 or len(score_mods) > 0 or strategy.theta < 1
        look = None if recorder is None else recorder.attention
        # Not every model's own block takes an empty batch.
        untouched = bias is None and heads is None and not asked and state.x.shape[0] > 0
        untouched = untouched and look is None
        if untouched or not (block.attends or plan.reads):
            # Nothing to see and nothing to change: the model's own block, at its own speed.
            with self.span("block"):
                whole = block.run(state)
            if whole is not None:
                return replace(state, x=whole), _NOTHING
        record_kept = strategy.theta < 1 and recorder is not None and recorder.wants_share
        requires = plan.requires
        if record_kept:
            requires = (*requires, AttentionStat.kept())
        if look is not None:
            block.check_open(self.backbone.model)
            requires = (*requires, look) if look not in requires else requires
        request = AttentionSpec(
            requires=requires,
            key_bias=bias,
            theta=strategy.theta,
            threshold=strategy.threshold,
            reference=strategy.reference,
            score_mods=score_mods,
            scratch=forward.scratch,
        )
        call = call_of(block.block)
        if call is not None:
            state = replace(state, x=call.enter(state.x))
        if heads is None:
            with self.span("heads"):
                heads = block.qkv_of(state)
        with self.span("attention"):
            out, attention = attend(heads, request, state, self.engines)
        with self.span("project"):
            state = replace(state, x=block.after_attention(state.x, out, heads))
        if recorder is not None and look is not None:
            recorder.attended(state, attention[look])
        if recorder is not None and record_kept:
            recorder.sparsified(attention[AttentionStat.kept()] - strategy.theta)
        if reduces:
            state = self._reduce(state, attention, plan, recorder)
        elif plan.followers:
            state = self._follow(state, attention, plan, None)
        # The MLP is the forward's peak of memory: nothing of the attention may live through it
        # but a small scratch.
        del heads, out
        attention = attention if plan.watched else _NOTHING
        with self.span("mlp"):
            x = block.after_mlp(state.x)
        return replace(state, x=x if call is None else call.leave(x)), attention

    def _reduce(
        self,
        state: TokenState,
        attention: AttentionStats,
        plan: LayerPlan,
        recorder: Recorder | None,
    ) -> TokenState:
        selector, fuser = cast(Selector, self.parts["selector"]), cast(Fuser, self.parts["fuser"])
        if self.training and self.strategy.selector.masks:
            with self.span("select"):
                state = selector.mask(state, attention, plan.count)
            memory = state.memory
            aim = plan.target * _ones(state.x[:, :1])
            if (before := memory.get("target_share")) is not None:
                aim = torch.cat((before, aim), dim=1)
            state = replace(state, memory={**memory, "target_share": aim})
            return self._follow(state, attention, plan, None) if plan.followers else state
        if state.size is None and (self.tracks_size or plan.adaptive):
            state = replace(state, size=_ones(state.x))
        with self.span("select"):
            selection = selector(state, attention, plan.count)
        with self.span("fuse"):
            after = fuser(state, selection, state.graph, attention)
            if selection.alive is not None:
                after = _padded(after, selection.alive)
        expected = state.num_tokens - plan.count + self.strategy.fuser.extra
        if plan.adaptive:
            expected = selection.keep.shape[1]
        if after.num_tokens != expected or after.index.shape[1] != expected:
            raise PartError(
                f"{type(fuser).__name__} must leave {expected} image tokens of {state.num_tokens} "
                f"when {plan.count} go, got {after.num_tokens} (index of {after.index.shape[1]})."
            )
        if recorder is not None:
            recorder.reduction(state, selection, attention, fuser)
        return self._follow(after, attention, plan, selection) if plan.followers else after

    def _follow(
        self,
        state: TokenState,
        attention: AttentionStats,
        plan: LayerPlan,
        selection: Selection | None,
    ) -> TokenState:
        """What score mods remember of the tokens, after some of them went or a block attended."""
        for mod, requires in plan.followers:
            # Before the block there is no attention to see.
            seen = {need: attention[need] for need in requires if need in attention.values}
            state = mod.follow(state, AttentionStats(seen), selection)
        return state

    @property
    def training(self) -> bool:
        """Whether parts that have a training form run in it."""
        return bool(self.backbone.model.training)

    @property
    def tracks_size(self) -> bool:
        """Whether anything reads token sizes."""
        strategy = self.strategy
        return strategy.proportional_attention or strategy.fuser.uses_size or self.weighs

    @property
    def weighs(self) -> bool:
        """Whether the head's average counts a token once for each patch it stands for.

        Where merging conserves sizes that is the average of the dense model. The released programs
        have the plain one.
        """
        conserves = self.strategy.fuser.traits.conserves_size and not self.strategy.reference
        return conserves and self.backbone.pooling == "average"


def _ones(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=at_least_fp32(x.dtype), device=x.device)


def _padded(state: TokenState, alive: Bool[Tensor, "b n"]) -> TokenState:
    """The state with places that are no tokens: of no position and of size 0."""
    assert state.size is not None
    front = alive.new_ones(alive.shape[0], state.num_prefix)
    size = state.size * torch.cat((front, alive), dim=1).to(state.size.dtype)
    return replace(state, index=torch.where(alive, state.index, -1), size=size)
