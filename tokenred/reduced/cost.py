"""The cost of a forward in closed form, at the token counts that really run.

One multiply-accumulate (MAC) is one multiplication and one addition. The overhead of a method
(graph, matching, propagation) is reported separately and never added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenred.core.info import ModelInfo
from tokenred.strategies.strategy import Strategy

__all__ = ["Cost", "LayerCost", "needs_graph", "strategy_cost", "token_grids"]


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


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        layers: one entry per block.
        stem, head: MACs of embedding, and of pooling and classifier.
        learned: MACs of parts with weights; included.
        overhead: MACs spent on choosing and fusing; not included.
    """

    layers: tuple[LayerCost, ...]
    stem: float
    head: float
    learned: float
    overhead: float

    @property
    def gmacs(self) -> float:
        """Cost of the backbone and the learned parts, in 10⁹ MACs."""
        return (self.stem + self.head + self.learned + sum(x.macs for x in self.layers)) / 1e9

    @property
    def overhead_gmacs(self) -> float:
        """The overhead, in 10⁹ MACs."""
        return (self.overhead + sum(x.overhead for x in self.layers)) / 1e9

    def table(self, num_prefix: int) -> str:
        """The layers as text: tokens in and out, GMACs."""
        lines = [f"{'block':>5} {'in':>6} {'gone':>5} {'out':>6} {'GMACs':>8}"]
        for x in self.layers:
            idle = f"  ({x.active} active)" if x.active != x.tokens_in else ""
            lines.append(
                f"{x.layer:>5} {x.tokens_in:>6} {x.removed:>5} {x.tokens_out:>6} "
                f"{x.macs / 1e9:>8.3f}{idle}"
            )
        lines.append(
            f"image tokens (beside {num_prefix} prefix); {self.gmacs:.3f} GMACs an image, "
            f"{self.overhead_gmacs:.4f} of overhead not counted"
        )
        return "\n".join(lines)


def strategy_cost(
    strategy: Strategy, info: ModelInfo, counts: Sequence[int], stem: float = 0.0
) -> Cost:
    """The cost of a strategy on a model, given the number of tokens removed in each block."""
    layers, tokens = [], info.num_patches
    grids = token_grids(strategy, info, counts) if info.needs_grid else [None] * (len(counts) + 1)
    for layer, count in enumerate(counts):
        rest = tokens - count
        rest += strategy.fuser.extra_in(layer, info.depth) if count else 0
        active = strategy.router.active(layer, info.depth, info.num_patches)
        passing = tokens if active is None else active
        overhead = 0.0
        if count:
            overhead += strategy.selector.macs(info, tokens, count)
            overhead += strategy.fuser.macs(info, tokens, count)
        if active is not None:
            overhead += strategy.router.macs(info, tokens, tokens - active)
        grid = grids[layer + (strategy.where == "before_block")]
        macs = _block_macs(info, layer, passing, passing - tokens + rest, strategy.where, grid)
        layers.append(LayerCost(layer, tokens, count, rest, passing, macs, overhead))
        tokens = rest
    last = info.num_prefix + tokens
    graph = strategy.graph.macs(info, info.num_patches, 0) if needs_graph(strategy, counts) else 0.0
    return Cost(
        layers=tuple(layers),
        stem=stem,
        head=info.head_fixed + info.head_per_token * last + info.head_per_pair * last**2,
        learned=sum(p.learned_macs(info, tuple(counts)) for p in strategy.parts.values()),
        overhead=graph,
    )


def token_grids(
    strategy: Strategy, info: ModelInfo, counts: Sequence[int]
) -> list[tuple[int, int] | None]:
    """Rows and columns of the image tokens before the first block and after each.

    None where they form no rectangle.
    """
    tokens, selector, fuser = info.num_patches, strategy.selector, strategy.fuser
    grids = [_of_size(info.grid, tokens)]
    for layer, count in enumerate(counts):
        grid = None if selector.adaptive(layer, info.depth) else grids[-1]
        if count and grid is not None and info.grid is not None:
            tokens += fuser.extra_in(layer, info.depth) - count
            after = selector.grid_after(layer, info.depth, info.grid)
            grid = None if fuser.replaces else _of_size(after, tokens)
        grids.append(grid)
    return grids


def _of_size(grid: tuple[int, int] | None, tokens: int) -> tuple[int, int] | None:
    return grid if grid is not None and grid[0] * grid[1] == tokens else None


def needs_graph(strategy: Strategy, counts: Sequence[int]) -> bool:
    """Whether any block reads the graph."""
    return strategy.fuser.uses_graph and any(counts)


def _block_macs(
    info: ModelInfo,
    layer: int,
    tokens_in: int,
    tokens_out: int,
    where: str,
    grid: tuple[int, int] | None,
) -> float:
    """``4Nc² + 2N²c`` for the attention, ``2·ratio·N'c²`` for the MLP.

    ``tokens_in`` and ``tokens_out`` are image tokens before and after the block's reduction, which
    comes ``where`` the strategy says; ``grid`` is that of the attention's, if it needs one. For a
    reduction inside the attention, all tokens have queries and keys; for one before it, the
    remaining tokens attend once more.
    """
    block, p = info.blocks[layer], info.num_prefix
    n_attention = p + (tokens_out if where == "before_block" else tokens_in)
    n_mlp = n_attention if block.parallel or where == "after_mlp" else p + tokens_out
    again = p + tokens_out if where == "before_attention" and tokens_out < tokens_in else 0
    return float(
        block.attention_macs(n_attention, grid)
        + block.attention_macs(again)
        + n_mlp * block.mlp_per_token
    )
