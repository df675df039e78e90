"""The plan of a forward: what happens in each block, resolved before anything runs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tokenred.attention import AttentionStat, ScoreMod
from tokenred.core.errors import ConfigError, ScheduleError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part
from tokenred.reduced.cost import strategy_cost, token_grids
from tokenred.strategies.base import Fuser, Selector, selectors
from tokenred.strategies.schedule import ScheduleContext
from tokenred.strategies.schedules import Budget, Constant
from tokenred.strategies.strategy import Strategy

__all__ = ["LayerPlan", "adapts", "plan_layers", "resolve_budget"]


@dataclass(frozen=True)
class LayerPlan:
    """What one block does.

    Attributes:
        count, adaptive: image tokens ``P`` to remove, and whether the images decide how many.
        before, inside: whether the reduction comes before the block or in it.
        active: image tokens that pass through the block, or None for all.
        splits, rejoins: whether idle tokens are set aside before the block, and come back after.
        watched: whether the router looks at the block's attention.
        remembered: whether the reduction before the next block reads it.
        requires: attention statistics to compute, for the reduction and the router.
        score_mods: the ones that act in this block.
        followers: score mods that follow the tokens, and the statistics that each reads here.
        target: the share of the initial image tokens that a training form aims at after the block.
        reads: whether the block's own attention is read.
        opens, opens_in_training: whether anything is done inside the block.
        fewer: whether tokens may be removed or idle before its attention.
        token_grid: rows and columns of the image tokens after the block, see `TokenState`.
    """

    count: int
    adaptive: bool
    before: bool
    inside: bool
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


def adapts(strategy: Strategy, depth: int) -> bool:
    """Whether the images of a batch may keep different numbers of tokens and are padded."""
    return any(strategy.selector.adaptive(layer, depth) for layer in range(depth))


def plan_layers(
    strategy: Strategy,
    info: ModelInfo,
    stem: float = 0.0,
    built: Mapping[str, Any] | None = None,
) -> tuple[LayerPlan, ...]:
    """Resolve a strategy on a model whose embedding costs ``stem``.

    A part that was replaced for this model (`CLSAttn` without a CLS token) reads what its
    replacement in ``built`` reads.

    Raises:
        ScheduleError: if a block has too few tokens to remove.
    """
    selector, fuser, router = strategy.selector, strategy.fuser, strategy.router
    depth, start = info.depth, info.num_patches
    context = ScheduleContext(
        depth=depth,
        patches=start,
        prefix=info.num_prefix,
        grid=info.grid,
        extra=fuser.extra,
        extra_in=lambda layer: fuser.extra_in(layer, depth),
        limit=selector.limit,
        caps=selector.caps,
        gmacs=lambda counts: strategy_cost(strategy, info, counts, stem).gmacs,
    )
    counts = strategy.schedule.resolve(context)
    made = built or {}
    mods = [made.get(f"score_mod_{i}", mod) for i, mod in enumerate(strategy.score_mods)]
    reduction = _reads(made.get("selector"), selector) + _reads(made.get("fuser"), fuser)
    looks_back = strategy.where == "before_block"
    _check_where(strategy)
    sizes_bias = strategy.proportional_attention or adapts(strategy, depth)
    plans, together, fewer, tokens = [], True, False, start
    grids = token_grids(strategy, info, counts)
    for layer, count in enumerate(counts):
        tokens -= count - (context.added(layer) if count else 0)
        active = router.active(layer, depth, start)
        adaptive = selector.adaptive(layer, depth)
        _check_block(strategy, layer, count, active, adaptive)
        goes = _goes(counts, selector, layer)
        before = goes and looks_back
        inside = goes and not looks_back
        remembered = looks_back and bool(reduction) and _goes(counts, selector, layer + 1)
        _check_looking_back(strategy, layer, before and bool(reduction))
        rejoins = router.rejoins(layer, depth)
        watched = active is not None or router.watches(layer, depth)
        followers = tuple((m, m.requires(layer, depth)) for m in mods if m.follows)
        score_mods = tuple(mod for mod in mods if mod.active(layer, depth))
        wanted = [*reduction] if inside or remembered else []
        wanted += [stat for _, requires in followers for stat in requires]
        wanted += router.requires if watched else ()
        opened = inside and strategy.where != "after_mlp"
        reads = bool(wanted) or opened or (active is not None and bool(router.preview))
        fewer = fewer or before
        opens = reads or (fewer and sizes_bias) or strategy.theta < 1
        masked = active is not None and router.masks
        share = strategy.schedule.share(layer, context)
        plans.append(
            LayerPlan(
                count=count,
                adaptive=adaptive,
                before=before,
                inside=inside,
                active=active,
                splits=active is not None and together,
                rejoins=active is not None and rejoins,
                watched=watched,
                remembered=remembered,
                requires=tuple(dict.fromkeys(wanted)),
                score_mods=score_mods,
                followers=followers,
                target=tokens / start if share is None else share,
                reads=reads,
                opens=opens or not all(mod.in_training_only for mod in score_mods),
                opens_in_training=opens or bool(score_mods) or masked,
                fewer=fewer or active is not None,
                token_grid=grids[layer + 1],
            )
        )
        together = active is None or rejoins
        fewer = fewer or goes
    if not together:
        raise ConfigError(
            f"{router!r} leaves tokens set aside after the last block; it must rejoin them."
        )
    if info.needs_grid:
        _check_grid(strategy, info, plans)
    return tuple(plans)


def _reads(built: Part | None, part: Selector | Fuser) -> tuple[AttentionStat, ...]:
    return built.requires if isinstance(built, Selector | Fuser) else part.requires


def _goes(counts: tuple[int, ...], selector: Selector, layer: int) -> bool:
    depth = len(counts)
    return layer < depth and (counts[layer] > 0 or selector.adaptive(layer, depth))


def _check_grid(strategy: Strategy, info: ModelInfo, plans: list[LayerPlan]) -> None:
    """Refuse what breaks the rectangle that the blocks take, or works inside them."""
    whole = not any(p.opens or p.opens_in_training or p.active is not None for p in plans)
    if whole and all(p.token_grid is not None for p in plans):
        return
    keep = ", ".join(
        e.name
        for e in selectors
        if hasattr(e.make, "grid_after") and e.make.grid_after is not Selector.grid_after
    )
    raise ConfigError(
        f"the blocks of {info.name} take rectangles of tokens and run whole, which "
        f"{strategy!r} does not respect. Use the recipe cubistmerge, or a selector that keeps a "
        f"rectangle ({keep}), with where='before_block' or 'after_mlp'; without a router, score "
        "mods, theta and proportional attention."
    )


def _check_where(strategy: Strategy) -> None:
    """Refuse to merge a map with a fuser that does not describe its transport."""
    if strategy.where == "inside_attention" and not strategy.fuser.tells_transport:
        raise ConfigError(
            f"{strategy.fuser!r} does not describe its transport, which is needed to merge a map. "
            "Use "
            "where='before_attention', or another fuser."
        )


def _check_looking_back(strategy: Strategy, layer: int, looks: bool) -> None:
    """Refuse to read an attention before the first block."""
    if looks and layer == 0:
        requires = strategy.selector.requires + strategy.fuser.requires
        raise ConfigError(
            f"{strategy.selector!r} with {strategy.fuser!r} reads "
            f"{', '.join(stat.kind for stat in requires)} from the attention of the block before, "
            "and there is none before block 0. Reduce later, or use where='after_attention'."
        )


def _check_block(
    strategy: Strategy, layer: int, count: int, active: int | None, adaptive: bool
) -> None:
    """Refuse parts that cannot be combined in a block."""
    if adaptive and not strategy.fuser.pads:
        raise ConfigError(
            f"{strategy.selector!r} keeps a number of tokens that depends on the image, but "
            f"{strategy.fuser!r} needs the same number for all. Use fuser='prune' or 'merge'."
        )
    if active is None:
        return
    if count or adaptive:
        raise ConfigError(
            f"block {layer} would both idle and remove tokens: {strategy.router!r} lets {active} "
            f"pass, {strategy.schedule!r} removes {count or 'some'}. Use separate blocks."
        )
    if follower := next((mod for mod in strategy.score_mods if mod.follows), None):
        raise ConfigError(
            f"{follower!r} follows the tokens from block to block, but {strategy.router!r} sets "
            f"some of them aside in block {layer}. Use one of the two."
        )


def resolve_budget(strategy: Strategy, info: ModelInfo, stem: float = 0.0) -> Strategy:
    """The strategy with its budget spent by the router, if that is what saves.

    A `Budget` over all blocks, with a router that can spend it (`Router.with_budget`), becomes the
    largest share of active tokens within it; every other strategy is unchanged.

    Raises:
        ScheduleError: for a budget below the cost of a single active token, or for a selector whose
            counts depend on the image.
    """
    budget, n = strategy.schedule, info.num_patches
    if not isinstance(budget, Budget):
        return strategy
    if adapts(strategy, info.depth):
        advice = "Leave out the budget; such a selector has its own limit."
        if strategy.selector.calibration_passes:
            advice = "tokenred.calibrate(model, strategy, images, share=…) finds its thresholds."
        raise ScheduleError(
            f"{budget!r}: {strategy.selector!r} keeps as many tokens as the image needs, so its "
            f"cost cannot be set. {advice}"
        )
    evenly = isinstance(budget.schedule, Constant)
    if not evenly or strategy.router.with_budget(Fraction(1)) is None:
        return strategy

    def at(active: int) -> Strategy:
        router = strategy.router.with_budget(Fraction(active, n))
        return strategy.replace(schedule=0, router=router)

    def cost(active: int) -> float:
        return strategy_cost(at(active), info, (0,) * info.depth, stem).gmacs

    fitting = bisect_right(range(1, n + 1), budget.gmacs, key=cost)
    if not fitting:
        raise ScheduleError(
            f"{budget!r}: even with one active token {strategy.router!r} costs {cost(1):.4g} GMACs "
            f"on this model, and {cost(n):.4g} with all. Choose a budget in between."
        )
    return at(fitting)
