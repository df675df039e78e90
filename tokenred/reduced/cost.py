"""What a forward costs, in closed form, at the token counts that really run.

One multiply-accumulate (MAC) is one multiplication and one addition. The overhead of a method
(graph, matching, propagation) is reported beside the cost and never added to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokenred.core.info import ModelInfo
from tokenred.core.part import Part
from tokenred.strategies.step import PLACES, in_order_of_place
from tokenred.strategies.strategy import Strategy


@dataclass(frozen=True)
class LayerCost:
    """One block: image tokens in, removed and out, tokens it processed, MACs."""

    layer: int
    tokens_in: int
    removed: int
    tokens_out: int
    active: int
    macs: float
    overhead: float


@dataclass(frozen=True, repr=False)
class Cost:
    """What one image costs.

    Attributes:
        layers: one entry a block.
        stem, head: MACs of embedding, and of pooling and classifier.
        learned: MACs of parts with weights; they count.
        overhead: MACs spent on choosing and fusing; they do not.
        unknown: parts whose overhead is not included: your own without ``macs``, and selectors
            whose counts depend on the image (see `tokenred.analysis.adaptive_cost`).
    """

    layers: tuple[LayerCost, ...]
    stem: float
    head: float
    learned: float
    overhead: float
    unknown: tuple[str, ...] = ()

    @property
    def gmacs(self) -> float:
        """Cost of the backbone and the learned parts, in 10⁹ MACs."""
        return (self.stem + self.head + self.learned + sum(x.macs for x in self.layers)) / 1e9

    @property
    def overhead_gmacs(self) -> float:
        """The overhead, in 10⁹ MACs."""
        return (self.overhead + sum(x.overhead for x in self.layers)) / 1e9

    def __repr__(self) -> str:
        return f"Cost({self.gmacs:.3f} GMACs, {len(self.layers)} blocks)  # print it for its table"

    def __str__(self) -> str:
        """The layers as a table: tokens in and out, GMACs."""
        lines = [f"{'block':>5} {'in':>6} {'gone':>5} {'out':>6} {'GMACs':>8}"]
        for x in self.layers:
            idle = f"  ({x.active} active)" if x.active != x.tokens_in else ""
            lines.append(
                f"{x.layer:>5} {x.tokens_in:>6} {x.removed:>5} {x.tokens_out:>6} "
                f"{x.macs / 1e9:>8.3f}{idle}"
            )
        total = f"image tokens, without the prefix; {self.gmacs:.3f} GMACs per image"
        if known := round(self.overhead_gmacs, 4):
            total += f", {known:.4f} of overhead not counted"
        if self.unknown:
            total += f"; the overhead of {', '.join(self.unknown)} is unknown"
        lines.append(total)
        return "\n".join(lines)


def strategy_cost(
    strategy: Strategy, info: ModelInfo, counts: Sequence[Sequence[int]], stem: float = 0.0
) -> Cost:
    """The cost of a strategy on a model, given the tokens removed by step and block."""
    layers, tokens, depth = [], info.num_patches, info.depth
    in_order = in_order_of_place(strategy.steps)
    grids = token_grids(strategy, info, counts) if info.needs_grid else None
    before = sum(step.where == "before_block" for step in strategy.steps)
    for layer in range(len(counts[0])):
        active = strategy.router.active(layer, depth, info.num_patches)
        passing, idle = (tokens, 0) if active is None else (active, tokens - active)
        overhead = 0.0 if active is None else strategy.router.macs(info, tokens, idle)
        now, at = passing, {}
        for number in in_order:
            step, count = strategy.steps[number], counts[number][layer]
            if count:
                overhead += step.selector.macs(info, now, count) + step.fuser.macs(info, now, count)
                now += step.fuser.extra_in(layer, depth) - count
                at[step.where] = now
        grid = None if grids is None else grids[layer][before]
        macs = _block_macs(info, layer, passing, at, grid)
        gone = sum(own[layer] for own in counts)
        layers.append(LayerCost(layer, tokens, gone, now + idle, passing, macs, overhead))
        tokens = now + idle
    last = info.num_prefix + tokens
    graph = strategy.graph.macs(info, info.num_patches, 0) if needs_graph(strategy, counts) else 0.0
    together = tuple(map(sum, zip(*counts, strict=True)))
    learned = [(part, together) for part in strategy.common_parts.values()]
    for step, own in zip(strategy.steps, counts, strict=True):
        learned += [(part, tuple(own)) for part in step.parts.values()]
    return Cost(
        layers=tuple(layers),
        stem=stem,
        head=info.head_fixed + info.head_per_token * last + info.head_per_pair * last**2,
        learned=sum(part.learned_macs(info, gone) for part, gone in learned),
        overhead=graph,
        unknown=_unknown(strategy),
    )


def token_grids(
    strategy: Strategy, info: ModelInfo, counts: Sequence[Sequence[int]]
) -> list[list[tuple[int, int] | None]]:
    """Rows and columns of the image tokens: by block, before it and after each step, by place.

    None where they form no rectangle.
    """
    tokens, in_order = info.num_patches, in_order_of_place(strategy.steps)
    grid = _of_size(info.grid, tokens)
    grids = []
    for layer in range(info.depth):
        grids.append([grid])
        for step, count in ((strategy.steps[n], counts[n][layer]) for n in in_order):
            if step.adaptive(layer, info.depth):
                grid = None
            elif count and grid is not None and info.grid is not None:
                tokens += step.fuser.extra_in(layer, info.depth) - count
                after = step.selector.grid_after(layer, info.depth, info.grid)
                grid = None if step.fuser.replaces else _of_size(after, tokens)
            grids[-1].append(grid)
    return grids


def _of_size(grid: tuple[int, int] | None, tokens: int) -> tuple[int, int] | None:
    return grid if grid is not None and grid[0] * grid[1] == tokens else None


def counts_alive(
    strategy: Strategy, planned: Sequence[Sequence[int]], alive: Sequence[int]
) -> list[list[int]]:
    """The counts by step and block of an image with so many tokens before and after each block.

    A step whose counts depend on the image removes what the others in its block do not.
    """
    found, depth = [list(own) for own in planned], len(planned[0])
    for layer, (before, after) in enumerate(pairwise(alive)):
        extras = [step.fuser.extra_in(layer, depth) for step in strategy.steps]
        free = [n for n, step in enumerate(strategy.steps) if step.adaptive(layer, depth)]
        for number in free or [0]:
            found[number][layer] = 0
        others = sum(o[layer] - e for o, e in zip(found, extras, strict=True) if o[layer])
        if gone := before - after - others:
            taker = free[0] if free else 0
            found[taker][layer] = gone + extras[taker]
    return found


def _unknown(strategy: Strategy) -> tuple[str, ...]:
    """Parts of others, which choose or fuse and have no `macs`."""
    names = ("scorer", "fuser", "graph", "router")
    parts = (part for name, part in strategy.parts.items() if name.rpartition(".")[2] in names)
    kinds = dict.fromkeys(type(part) for part in parts)
    own = (kind for kind in kinds if not kind.__module__.startswith("tokenred."))
    return tuple(kind.__name__ for kind in own if kind.macs is Part.macs)


def needs_graph(strategy: Strategy, counts: Sequence[Sequence[int]]) -> bool:
    """Whether any block reads the graph."""
    both = zip(strategy.steps, counts, strict=True)
    reads = any(step.uses_graph and any(own) for step, own in both)
    return reads or strategy.router.uses_graph


def _block_macs(
    info: ModelInfo, layer: int, tokens: int, after: Mapping[str, int], grid: tuple[int, int] | None
) -> float:
    """``4Nc² + 2N²c`` for the attention, ``2·ratio·N'c²`` for the MLP.

    ``tokens`` are image tokens that enter the block, and ``after`` those after its reductions, by
    place; ``grid`` is that of the attention, if it needs one. For a reduction inside the attention,
    all tokens have queries and keys; for one before it, the remaining tokens attend once more.
    """
    block, p = info.blocks[layer], info.num_prefix
    attending = after.get("before_block", tokens)
    again = p + after["before_attention"] if "before_attention" in after else 0
    left = attending
    for place in PLACES[1:4]:
        left = after.get(place, left)
    n_attention = p + attending
    n_mlp = n_attention if block.parallel else p + left
    return float(
        block.attention_macs(n_attention, grid)
        + block.attention_macs(again)
        + n_mlp * block.mlp_per_token
    )
