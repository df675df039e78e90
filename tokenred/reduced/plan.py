"""The plan of a forward: what happens in each block, resolved before anything runs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from tokenred.attention import AttentionStat, ScoreMod
from tokenred.core.errors import ConfigError, ScheduleError
from tokenred.core.info import ModelInfo
from tokenred.reduced.cost import needs_graph, strategy_cost, token_grids
from tokenred.reduced.refusals import (
    check_block,
    check_grid,
    check_handed_on,
    check_looking_back,
    check_padding,
    check_steps,
)
from tokenred.strategies.base import required_by
from tokenred.strategies.schedule import ScheduleContext
from tokenred.strategies.schedules import Budget, Constant
from tokenred.strategies.step import Step, in_order_of_place
from tokenred.strategies.strategy import Strategy


def step_parts(number: int) -> tuple[str, str]:
    """The names under which the selector and the fuser of a step are built."""
    return ("selector", "fuser") if number == 0 else (f"selector_{number}", f"fuser_{number}")


def built_parts(strategy: Strategy) -> dict[str, tuple[int | None, Any]]:
    """The parts that are built for a model, by the names of their weights, with their steps."""
    found: dict[str, tuple[int | None, Any]] = {}
    for number, step in enumerate(strategy.steps):
        both = zip(step_parts(number), (step.selector, step.fuser), strict=True)
        found |= {name: (number, part) for name, part in both}
    found |= {name: (None, getattr(strategy, name)) for name in ("router", "embedding", "graph")}
    return found | {f"score_mod_{i}": (None, mod) for i, mod in enumerate(strategy.score_mods)}


@dataclass(frozen=True)
class StepPlan:
    """What a step does in one block.

    Attributes:
        number: which step of the strategy.
        count, adaptive: image tokens ``P`` to remove, and whether the images decide how many.
        where: before the block or in it.
        tells: whether score mods see the block's attention with it: the first step that is not
            before the block.
        hands_on: whether a later step reads the same attention.
        token_grid: rows and columns of the image tokens after it, see `TokenState`.
    """

    number: int
    count: int
    adaptive: bool
    where: str
    tells: bool
    hands_on: bool
    token_grid: tuple[int, int] | None


@dataclass(frozen=True)
class LayerPlan:
    """What one block does.

    Attributes:
        steps: the reductions, in their order.
        active: image tokens that pass through the block, or None for all.
        splits, rejoins: whether idle tokens are set aside before the block, and come back after.
        watched: whether the router looks at the block's attention.
        remembered: whether a reduction before the next block reads it.
        requires: attention statistics to compute, for the reductions and the router.
        score_mods: the ones that act in this block.
        followers: score mods that follow the tokens, and the statistics that each reads here.
        target: the share of the initial image tokens that a training form aims at after the block.
        reads: whether the block's own attention is read.
        opens, opens_in_training: whether anything is done inside the block.
        fewer: whether tokens may be removed or idle before its attention.
        token_grid: rows and columns of the image tokens after the block, see `TokenState`.
    """

    steps: tuple[StepPlan, ...]
    active: int | None
    splits: bool
    rejoins: bool
    watched: bool
    remembered: bool
    requires: tuple[AttentionStat, ...]
    score_mods: tuple[ScoreMod, ...]
    followers: tuple[tuple[ScoreMod, tuple[AttentionStat, ...]], ...]
    target: float
    reads: bool
    opens: bool
    opens_in_training: bool
    fewer: bool
    token_grid: tuple[int, int] | None

    def at(self, *places: str) -> tuple[StepPlan, ...]:
        """The reductions at some places."""
        return tuple(step for step in self.steps if step.where in places)


@dataclass(frozen=True)
class Plan:
    """What a strategy does on a model.

    Attributes:
        layers: one entry a block.
        counts: the image tokens that go, by step and block.
        reads_graph: whether any block reads the graph.
    """

    layers: tuple[LayerPlan, ...]
    counts: tuple[tuple[int, ...], ...]
    reads_graph: bool


def adaptive_steps(strategy: Strategy, depth: int) -> list[Step]:
    """The steps that remove in some block a number of tokens that depends on the image."""
    return [s for s in strategy.steps if any(s.adaptive(layer, depth) for layer in range(depth))]


def _counts_by_step(
    strategy: Strategy, info: ModelInfo, stem: float, contexts: Sequence[ScheduleContext]
) -> tuple[tuple[int, ...], ...]:
    """The image tokens that go, by step and block.

    Raises:
        ScheduleError: if a block has too few tokens to remove.
    """
    if strategy.single:
        return (strategy.schedule.resolve(contexts[0]),)
    budgets = [step.schedule for step in strategy.steps if isinstance(step.schedule, Budget)]
    if not budgets:
        return _together(strategy, contexts)
    if len({budget.gmacs for budget in budgets}) > 1:
        raise ScheduleError(f"the steps of a strategy share one budget, got {budgets}.")

    def at(level: int) -> tuple[tuple[int, ...], ...]:
        return _together(strategy, [replace(own, caps=True) for own in contexts], level)

    def cost(level: int) -> float:
        return strategy_cost(strategy, info, at(level), stem).gmacs

    return at(budgets[0].level(cost, info.num_patches - 1))


def _together(
    strategy: Strategy, contexts: Sequence[ScheduleContext], level: int = 0
) -> tuple[tuple[int, ...], ...]:
    """The counts of steps that take of the same tokens, their budgets at one level."""
    depth, tokens = contexts[0].depth, contexts[0].patches
    in_order = in_order_of_place(strategy.steps)
    found = [[0] * depth for _ in strategy.steps]
    scaled = {
        number: step.schedule.at(level, contexts[number])
        for number, step in enumerate(strategy.steps)
        if isinstance(step.schedule, Budget)
    }
    for layer in range(depth):
        for number in in_order:
            step, context = strategy.steps[number], contexts[number]
            if not step.acts(layer):
                continue
            if number in scaled:
                count = min(scaled[number][layer], max(0, context.limit(tokens)))
            else:
                count = step.schedule.possible(layer, tokens, context)
            found[number][layer] = count
            tokens += (context.added(layer) if count else 0) - count
    return tuple(map(tuple, found))


def plan_layers(
    strategy: Strategy, info: ModelInfo, stem: float = 0.0, built: Mapping[str, Any] | None = None
) -> Plan:
    """Resolve a strategy on a model whose embedding costs ``stem``.

    A part that was replaced for this model (`CLSAttn` without a CLS token) reads what its
    replacement in ``built`` reads.

    Raises:
        ScheduleError: if a block has too few tokens to remove.
        ConfigError: for parts that cannot be combined.
    """
    router, depth, start = strategy.router, info.depth, info.num_patches
    contexts = _contexts(strategy, info, stem)
    counts = _counts_by_step(strategy, info, stem, contexts)
    parts = {name: part for name, (_, part) in built_parts(strategy).items()} | dict(built or {})
    mods = [part for name, part in parts.items() if name.startswith("score_mod_")]
    grids = token_grids(strategy, info, counts)
    in_order = in_order_of_place(strategy.steps)
    # The steps that act in each block: before it, and in it.
    acting: list[tuple[list[int], list[int]]] = []
    for layer in range(depth):
        at: tuple[list[int], list[int]] = ([], [])
        for number, step in ((n, strategy.steps[n]) for n in in_order):
            if counts[number][layer] or step.adaptive(layer, depth):
                at[step.where != "before_block"].append(number)
        acting.append(at)

    reads = [
        [stat for name in step_parts(number) for stat in required_by(parts[name])]
        for number in range(len(strategy.steps))
    ]

    def read_by(numbers: Iterable[int]) -> list[AttentionStat]:
        return [stat for number in numbers for stat in reads[number]]

    check_steps(strategy)
    check_padding(strategy, [[*first, *inside] for first, inside in acting])
    sizes_bias = strategy.proportional_attention or bool(adaptive_steps(strategy, depth))
    plans, together, fewer, tokens = [], True, False, start
    for layer, (first, inside) in enumerate(acting):
        active = router.active(layer, depth, start)
        check_block(strategy, layer, [*first, *inside], active)
        check_looking_back(strategy, layer, read_by(first))
        ahead = read_by(acting[layer + 1][0]) if layer + 1 < depth else []
        steps = []
        for group, later in ((first, []), (inside, ahead)):
            for place, number in enumerate(group):
                step, count = strategy.steps[number], counts[number][layer]
                again = [*read_by(group[place + 1 :]), *later]
                check_handed_on(step, again)
                tokens += (step.fuser.extra_in(layer, depth) if count else 0) - count
                steps.append(
                    StepPlan(
                        number=number,
                        count=count,
                        adaptive=step.adaptive(layer, depth),
                        where=step.where,
                        tells=group is inside and place == 0,
                        hands_on=bool(again),
                        token_grid=grids[layer][1 + in_order.index(number)],
                    )
                )
        rejoins = router.rejoins(layer, depth)
        watched = active is not None or router.watches(layer, depth)
        followers = tuple((m, m.requires(layer, depth)) for m in mods if m.follows)
        score_mods = tuple(mod for mod in mods if mod.active(layer, depth))
        wanted = [*read_by(inside), *ahead]
        wanted += [stat for _, requires in followers for stat in requires]
        wanted += required_by(router) if watched else ()
        opened = any(strategy.steps[n].where != "after_mlp" for n in inside)
        looks = bool(wanted) or opened or (active is not None and bool(router.preview))
        fewer = fewer or bool(first)
        opens = looks or (fewer and sizes_bias) or strategy.theta < 1
        masked = active is not None and router.masks
        share = strategy.schedule.share(layer, contexts[0])
        plans.append(
            LayerPlan(
                steps=tuple(steps),
                active=active,
                splits=active is not None and together,
                rejoins=active is not None and rejoins,
                watched=watched,
                remembered=bool(ahead),
                requires=tuple(dict.fromkeys(wanted)),
                score_mods=score_mods,
                followers=followers,
                target=tokens / start if share is None else share,
                reads=looks,
                opens=opens or not all(mod.in_training_only for mod in score_mods),
                opens_in_training=opens or bool(score_mods) or masked,
                fewer=fewer or active is not None,
                token_grid=grids[layer][-1],
            )
        )
        together = active is None or rejoins
        fewer = fewer or bool(steps)
    if not together:
        raise ConfigError(
            f"{router!r} leaves tokens set aside after the last block; it must rejoin them."
        )
    if info.needs_grid:
        whole = not any(p.opens or p.opens_in_training or p.active is not None for p in plans)
        check_grid(strategy, info, whole and all(p.token_grid is not None for p in plans))
    return Plan(tuple(plans), counts, needs_graph(strategy, counts))


def _contexts(strategy: Strategy, info: ModelInfo, stem: float) -> list[ScheduleContext]:
    """What the schedule of each step is resolved in."""
    return [
        ScheduleContext(
            depth=info.depth,
            patches=info.num_patches,
            prefix=info.num_prefix,
            grid=info.grid,
            added=partial(step.fuser.extra_in, depth=info.depth),
            limit=step.selector.limit,
            caps=step.selector.caps,
            gmacs=lambda counts: strategy_cost(strategy, info, [counts], stem).gmacs,
        )
        for step in strategy.steps
    ]


def resolve_budget(strategy: Strategy, info: ModelInfo, stem: float = 0.0) -> Strategy:
    """The strategy with its budget spent by the router, if that is what saves.

    A `Budget` over all blocks, with a router that can spend it (`Router.with_budget`), becomes the
    largest share of active tokens within it; every other strategy is unchanged.

    Raises:
        ScheduleError: for a budget below the cost of a single active token, or for a selector whose
            counts depend on the image.
    """
    budgets = [step.schedule for step in strategy.steps if isinstance(step.schedule, Budget)]
    if not budgets:
        return strategy
    budget, n = budgets[0], info.num_patches
    for step in adaptive_steps(strategy, info.depth):
        advice = "Leave out the budget; such a selector has its own limit."
        if step.selector.calibration_passes:
            advice = "tokenred.calibrate(model, strategy, images, share=…) finds its thresholds."
        raise ScheduleError(
            f"{step.selector!r} keeps as many tokens as the image needs, so its "
            f"cost cannot be set. {advice}"
        )
    evenly = strategy.single and isinstance(budget.schedule, Constant)
    if not evenly or strategy.router.with_budget(Fraction(1)) is None:
        return strategy

    def at(active: int) -> Strategy:
        router = strategy.router.with_budget(Fraction(active, n))
        return strategy.replace(schedule=0, router=router)

    def cost(active: int) -> float:
        return strategy_cost(at(active), info, [(0,) * info.depth], stem).gmacs

    fitting = bisect_right(range(1, n + 1), budget.gmacs, key=cost)
    if not fitting:
        raise ScheduleError(
            f"the budget is {budget.gmacs:.4g} GMACs, but even with one active token "
            f"{strategy.router!r} costs {cost(1):.4g} on this model. Choose a larger budget."
        )
    return at(fitting)
