"""The block loop: from images to tokens and through the blocks, following the plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

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
    reduces,
    size_bias,
)
from tokenred.backbones.base import BlockAdapter, Embedded
from tokenred.backbones.hooks import call_of
from tokenred.core.capture import fixed, is_eager, replace
from tokenred.core.errors import PartError, shown
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, gather_tokens
from tokenred.graphs.graph import Graph
from tokenred.reduced.ahead import columns_merged, rows_merged, values_spread
from tokenred.reduced.packed import Packing, packing_of
from tokenred.reduced.plan import LayerPlan, Plan, StepPlan
from tokenred.reduced.recorder import Recorder, Span, Taken, no_span
from tokenred.reduced.refusals import AHEAD, explain
from tokenred.reduced.setup import Setup
from tokenred.strategies.base import Reader, Selector
from tokenred.strategies.kernels import built, fused, selected

# Added to the logits of idle keys in a training form, as IdleViT does.
_IDLE = -1e5

_NOTHING = AttentionStats()


@dataclass(frozen=True, eq=False)
class LoopState:
    """Tokens between two blocks: those that are processed, and those set aside.

    ``before`` are all tokens as they were when some began to idle, ``resting`` is what the router
    set aside, and ``attention`` the statistics of the last block for the router or the next
    reduction.
    """

    state: TokenState
    before: TokenState | None = None
    resting: Mapping[str, Tensor] = field(default_factory=dict)
    attention: AttentionStats | None = None


def _scratch() -> Scratch | None:
    """Buffers for attention; none if gradients or a compiler need fresh ones."""
    return Scratch() if not torch.is_grad_enabled() and is_eager() else None


@dataclass(frozen=True, eq=False)
class Runner:
    """One pass through a model, observed by ``span`` and ``recorder``."""

    setup: Setup
    engines: tuple[Engine, ...]
    span: Span = no_span
    recorder: Recorder | None = None
    check: bool = False
    scratch: Scratch | None = field(default_factory=_scratch)

    def __call__(self, images: Float[Tensor, "b ch H W"], last: int | None = None) -> TokenState:
        """The tokens after all blocks, or after block ``last``."""
        state, plan = self._embed(images)
        if self.recorder is not None:
            self.recorder.block(state)
        backbone = self.setup.backbone
        blocks = backbone.blocks if last is None else backbone.blocks[: last + 1]
        save_memory = torch.is_grad_enabled()
        save_all = save_memory and backbone.checkpoint_blocks
        tokens = LoopState(state)
        for layer, (block, own) in enumerate(zip(blocks, plan.layers, strict=False)):
            tokens = replace(tokens, state=replace(tokens.state, layer=layer))
            saves = save_memory and block.checkpointed and self.setup.opens(block, own)
            if save_all or saves:
                # Bound now, because the backward runs the block again, long after this loop.
                tokens = checkpoint(self._through, block, own, tokens, use_reentrant=False)
            else:
                tokens = self._through(block, own, tokens)
            if self.recorder is not None:
                self.recorder.block(self._together(tokens))
        return self._together(tokens)

    def _embed(self, images: Float[Tensor, "b ch H W"]) -> tuple[TokenState, Plan]:
        """The tokens for the first block, their graph, and the plan of the blocks."""
        setup = self.setup
        backbone, info, parts = setup.backbone, setup.info, setup.parts
        grid = backbone.grid_of(images.shape[2], images.shape[3])
        with self.span("embed"):
            embedded = backbone.embed(images)
            if setup.strategy.embedding.adds:
                added = parts["embedding"](images, embedded.x0, grid)
                embedded = _with_added(embedded, added)
        tokens = fixed(embedded.index.shape[1])
        setup.check_prefix(fixed(embedded.x.shape[1]) - tokens)
        plan = setup.plan(grid, tokens)
        setup.check_blocks(plan)
        graph = None
        if plan.reads_graph:
            with self.span("graph"):
                x0, builder = embedded.x0, parts["graph"]
                fast = reduces(self.engines, x0)
                graph = built(builder, x0, grid) if fast else builder(x0, grid)
                if not (graph is None or isinstance(graph, Graph)):
                    raise PartError(
                        f"{type(builder).__name__} must return a tokenred.graphs.Graph or "
                        f"None, got {shown(graph)}."
                    )
                # Every block uses it; a builder may return None.
                graph = None if graph is None else graph.with_columns()
        return TokenState(
            x=embedded.x,
            index=embedded.index,
            num_prefix=info.num_prefix,
            grid=grid,
            graph=graph,
            cls_index=info.cls_index,
            layer=-1,
            depth=info.depth,
            positions=embedded.positions,
            token_grid=grid if grid[0] * grid[1] == tokens else None,
        ), plan

    def _together(self, tokens: LoopState) -> TokenState:
        """All tokens, including idle ones."""
        if tokens.before is None:
            return tokens.state
        attention = tokens.attention or _NOTHING
        given = (tokens.before, tokens.state, tokens.resting, attention)
        joined: TokenState = self._ask(self.setup.router.join, *given)
        return joined

    def _ask(self, method: Callable[..., Any], *given: Any) -> Any:
        """What the router says of a state, given first."""
        try:
            return method(*given)
        except Exception as error:
            explain(self.setup.router, error, given[0])
            raise

    def _through(self, block: BlockAdapter, plan: LayerPlan, tokens: LoopState) -> LoopState:
        """One block; before it, the strategy may reduce and the router may set tokens aside."""
        state, router = tokens.state, self.setup.router
        attention = tokens.attention or _NOTHING
        for step in plan.at("before_block"):
            state, attention, _ = self._reduce(state, attention, plan, step)
        if plan.active is None:
            state, attention = self._block(block, plan, state)
            if plan.watched:
                state = self._ask(router.observe, state, attention)
            return LoopState(state, attention=attention if plan.remembered else None)
        if self.setup.training and self.setup.strategy.router.masks:
            return LoopState(self._masked(block, plan, state))
        qkv, before, resting = None, tokens.before, tokens.resting
        if plan.splits:
            before = state
            with self.span("select"):
                state, resting, qkv = self._split(block, plan.active, state)
        state, attention = self._block(block, plan, state, qkv)
        state = self._ask(router.observe, state, attention)
        apart = LoopState(state, before, resting, attention)
        if not plan.rejoins:
            return apart
        with self.span("fuse"):
            return LoopState(self._together(apart))

    def _split(
        self, block: BlockAdapter, count: int, state: TokenState
    ) -> tuple[TokenState, Mapping[str, Tensor], QKV | None]:
        """The active tokens, the ones set aside, and the active tokens' heads, if known."""
        router, wanted = self.setup.router, self.setup.strategy.router.preview
        qkv = block.qkv_of(state, quiet=True) if wanted else None
        preview = AttentionStats({} if qkv is None else qkv.stats(wanted, state))
        active, resting = self._ask(router.split, state, preview, count)
        places = resting.get("places")
        # Hooks see the active tokens and may change them.
        if qkv is None or places is None or block.hooked:
            return active, resting, None
        return active, resting, qkv.take(places)

    def _masked(self, block: BlockAdapter, plan: LayerPlan, state: TokenState) -> TokenState:
        """A block in the training form: all tokens pass through it, and idle ones are restored."""
        assert plan.active is not None
        qkv = block.qkv_of(state, quiet=True)
        mask, state = self._ask(self.setup.router.mask, state, qkv, plan.active)
        known = None if block.hooked else qkv
        after, _ = self._block(block, plan, state, known, _IDLE * (1 - mask))
        return replace(after, x=torch.where(mask[..., None] > 0, after.x, state.x))

    def _block(
        self,
        block: BlockAdapter,
        plan: LayerPlan,
        state: TokenState,
        qkv: QKV | None = None,
        idle: Float[Tensor, "b N"] | None = None,
    ) -> tuple[TokenState, AttentionStats]:
        """Attention, reduction, MLP; ``qkv`` if it is known, ``idle`` to mask keys."""
        strategy, recorder, training = self.setup.strategy, self.recorder, self.setup.training
        bias = self._bias(state)
        if idle is not None:
            bias = idle if bias is None else bias + idle
        ahead, late = plan.at(*AHEAD), plan.at("after_mlp")
        score_mods = tuple(e for e in plan.score_mods if training or not e.in_training_only)
        asked = (
            len(ahead or plan.at("after_attention")) > 0
            or len(plan.requires) > 0
            or len(score_mods) > 0
            or strategy.theta < 1
        )
        looks = () if recorder is None else recorder.looks
        look_at_map = len(looks) > 0 and looks[0].kind != "kept"
        # Not every model's block accepts an empty batch.
        untouched = bias is None and qkv is None and not asked and state.x.shape[0] > 0
        if (untouched and not look_at_map) or not (block.attends or plan.reads):
            # Nothing to read or change: run the model's own block at full speed.
            with self.span("block"):
                whole = block.run(state)
            if whole is not None:
                state = replace(state, x=whole)
                for step in late:
                    state, _, _ = self._reduce(state, _NOTHING, plan, step)
                return state, _NOTHING
        requires = plan.requires
        if len(looks) > 0:
            requires = tuple(dict.fromkeys((*requires, *looks)))
        if look_at_map:
            block.check_open(self.setup.backbone.model)
        in_map = tuple(mod for mod in score_mods if not mod.changes_values)
        spec = AttentionSpec(
            requires=requires,
            key_bias=bias,
            theta=strategy.theta,
            threshold=strategy.threshold,
            reference=strategy.reference,
            score_mods=in_map,
            scratch=self.scratch,
        )
        call = call_of(block.block)
        if call is not None:
            state = replace(state, x=call.enter(state.x))
        seen, working = state, self._packed(block, state)
        if ahead:
            state, qkv, out, attention = self._ahead(block, plan, ahead[0], state, spec)
        else:
            if qkv is None:
                with self.span("heads"):
                    qkv = working.qkv_of(state)
            for mod in score_mods:
                if mod.changes_values:
                    qkv = replace(qkv, v=mod.values(qkv.v, state))
            with self.span("attention"):
                out, attention = attend(qkv, spec, state, self.engines)
        with self.span("project"):
            own = block if ahead else working
            state = replace(state, x=own.after_attention(state.x, out, qkv))
        if recorder is not None and len(looks) > 0:
            recorder.attended(seen, attention)
        for step in plan.at("after_attention"):
            state, attention, _ = self._reduce(state, attention, plan, step)
        if not any(step.tells for step in plan.steps):
            state = _follow(state, attention, plan)
        # Memory peaks in the MLP: nothing of the attention may be kept until then except small
        # buffers.
        del qkv, out
        attention = attention if plan.watched or plan.remembered or late else _NOTHING
        working = self._packed(block, state) if plan.steps else working
        with self.span("mlp"):
            x = working.after_mlp(state.x)
        state = replace(state, x=x if call is None else call.leave(x))
        for step in late:
            state, attention, _ = self._reduce(state, attention, plan, step)
        return state, attention

    def _ahead(
        self,
        block: BlockAdapter,
        plan: LayerPlan,
        step: StepPlan,
        state: TokenState,
        spec: AttentionSpec,
    ) -> tuple[TokenState, QKV, Tensor, AttentionStats]:
        """A reduction based on the block's own attention, before that is applied.

        With ``inside_attention`` the map itself is merged: columns are summed by group, and rows
        are fused like tokens. With ``before_attention`` the remaining tokens attend again.
        """
        inside, fuser = step.where == "inside_attention", self.setup.step(step.number)[1]
        on_cpu, reads_values = state.x.device.type == "cpu", AttentionStat.values() in spec.requires
        with self.span("heads"):
            before = block.qkv_of(state, "qkv" if reads_values else "qk", quiet=True)
            drops = before.dropout > 0 or before.drop is not None
            # A map no larger than the MLP's hidden layer is held; a GPU computes it again faster.
            small = on_cpu and not drops and fixed(state.x.shape[1]) <= 4 * before.q.shape[-1]
            held = inside and (small or not fuser.linear)
        with self.span("attention"):
            judged = replace(spec, requires=(*spec.requires, *(AttentionStat.maps(),) * held))
            # No output is wanted, but CUDA's engines take no other width.
            nothing = before.k[..., :0] if on_cpu and not reads_values else before.v
            if judged.needs_map:
                whole = replace(before, v=nothing, dropout=0.0, drop=None)
                _, attention = attend(whole, judged, state, self.engines)
            else:
                attention = AttentionStats(before.stats(spec.requires, state))
        after, left, selection = self._reduce(state, attention, plan, step)
        with self.span("heads"):
            qkv = block.qkv_of(after, "v" if inside and selection is not None else "qkv")
            for mod in plan.score_mods:
                if mod.changes_values:
                    qkv = replace(qkv, v=mod.values(qkv.v, after))
        anew = replace(spec, requires=())
        with self.span("attention"):
            if not inside or selection is None:
                anew = replace(anew, key_bias=self._bias(after))
                return after, qkv, attend(qkv, anew, after, self.engines)[0], left
            transport = fuser.transport(state, selection, state.graph, attention)
            maps = attention[AttentionStat.maps()] if held else None
            if maps is None or fuser.linear:
                spread = replace(before, v=values_spread(transport, qkv.v, state))
                rows = (
                    attend(spread, anew, state, self.engines)[0]
                    if maps is None
                    else (maps @ spread.v.to(maps.dtype)).to(qkv.v.dtype)
                )
            else:
                rows = columns_merged(transport, maps, state)
            out = rows_merged(fuser, transport, state, selection, attention, rows)
        return (
            after,
            qkv,
            out if fuser.linear else (out @ qkv.v.to(out.dtype)).to(qkv.v.dtype),
            left,
        )

    def _packed(self, block: BlockAdapter, state: TokenState) -> BlockAdapter | Packing:
        pads = self.setup.pads and not self.setup.training
        return (packing_of(block, state) if pads else None) or block

    def _bias(self, state: TokenState) -> Float[Tensor, "b N"] | None:
        """``log s`` on the keys, if sizes are used or hide padding."""
        if state.size is None:
            return None
        if self.setup.strategy.proportional_attention:
            return size_bias(state.size)
        # Padding has size 0, so no token attends to it, however the method uses sizes.
        return size_bias((state.size > 0).to(state.size.dtype)) if self.setup.pads else None

    def _reduce(
        self, state: TokenState, attention: AttentionStats, plan: LayerPlan, step: StepPlan
    ) -> tuple[TokenState, AttentionStats, Selection | None]:
        """Select and fuse; in a training form, mask. Gives what a later step reads of attention."""
        setup, (selector, fuser) = self.setup, self.setup.step(step.number)
        told = attention if step.tells else _NOTHING
        if setup.training and setup.masks:
            with self.span("select"):
                state = selector.mask(state, attention, step.count)
            aim = plan.target * _ones(state.x[:, :1])
            if (before := state.memory.get("target_share")) is not None:
                aim = torch.cat((before, aim), dim=1)
            state = replace(state, memory={**state.memory, "target_share": aim})
            return _follow(state, told, plan), attention, None
        if state.size is None and (setup.tracks_size or step.adaptive):
            state = replace(state, size=_ones(state.x))
        part: Reader = getattr(selector, "scorer", selector)
        fast = reduces(self.engines, state.x)
        try:
            with self.span("select"):
                choose = partial(selected, selector) if fast else selector
                selection = choose(state, attention, step.count)
                if not isinstance(selection, Selection):
                    raise PartError(
                        f"{type(part).__name__} must return a tokenred.Selection, got "
                        f"{shown(selection)}."
                    )
                if self.check:
                    _check_selection(selector, selection, state.num_tokens)
            part = fuser
            with self.span("fuse"):
                if fast:
                    after = fused(fuser, state, selection, attention)
                else:
                    after = fuser(state, selection, state.graph, attention)
        except Exception as error:
            explain(part, error, state)
            raise
        if selection.alive is not None:
            after = _padded(after, selection.alive)
        expected = state.num_tokens - step.count
        expected += fuser.extra_in(state.layer, state.depth)
        if step.adaptive:
            expected = selection.keep.shape[1]
        if after.num_tokens != expected or after.index.shape[1] != expected:
            raise PartError(
                f"{type(fuser).__name__} must leave {expected} image tokens of {state.num_tokens} "
                f"when {step.count} go, got {after.num_tokens} (index of {after.index.shape[1]})."
            )
        if after.token_grid != step.token_grid:
            after = replace(after, token_grid=step.token_grid)
        if self.recorder is not None:
            self.recorder.reduction(Taken(state, selection, attention, fuser))
        if step.hands_on:
            attention = attention.take(selection.keep, state.num_prefix)
        return _follow(after, told, plan, selection), attention, selection


def _follow(
    state: TokenState,
    attention: AttentionStats,
    plan: LayerPlan,
    selection: Selection | None = None,
) -> TokenState:
    """What score mods remember of the tokens, after a reduction or an attention."""
    for mod, requires in plan.followers:
        # Each block's attention is seen once, and that before a block is of another one.
        seen = {stat: attention[stat] for stat in requires if stat in attention.values}
        state = mod.follow(state, AttentionStats(seen), selection)
    return state


def _check_selection(selector: Selector, selection: Selection, tokens: int) -> None:
    """Refuse scores that are NaN, and tokens that are not either kept or removed, once."""
    name = type(getattr(selector, "scorer", selector)).__name__
    if selection.score is not None and bool(selection.score.isnan().any()):
        raise PartError(f"{name} gave scores that are NaN. Look for 0/0, or log of 0.")
    both = torch.cat((selection.keep, selection.drop), dim=1).sort(dim=1).values
    if selection.alive is None and both.shape[1] == tokens:
        every = torch.arange(tokens, device=both.device)
        if bool((wrong := (both != every).any(dim=1)).any()):
            raise PartError(
                f"{name}: keep and drop must hold each of the {tokens} image tokens once; in image "
                f"{int(wrong.nonzero()[0])} of the batch some come twice."
            )


def _with_added(embedded: Embedded, added: Float[Tensor, "b N0 c"]) -> Embedded:
    """The model's embedding, plus what the method adds."""
    # Patch dropout may have left fewer tokens than the grid has.
    own = gather_tokens(added, embedded.index)
    front = embedded.x.shape[1] - own.shape[1]
    x = torch.cat((embedded.x[:, :front], embedded.x[:, front:] + own), dim=1)
    return replace(embedded, x=x, x0=embedded.x0 + added)


def _ones(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=at_least_fp32(x.dtype), device=x.device)


def _padded(state: TokenState, alive: Bool[Tensor, "b n"]) -> TokenState:
    """The state with padding added: entries without position and of size 0."""
    assert state.size is not None
    front = alive.new_ones(alive.shape[0], state.num_prefix)
    size = state.size * torch.cat((front, alive), dim=1).to(state.size.dtype)
    return replace(state, index=torch.where(alive, state.index, -1), size=size)
