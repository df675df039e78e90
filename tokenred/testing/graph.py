"""The promises of a graph builder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from tokenred.graphs import Graph, GraphBuilder
from tokenred.graphs.base import graph_builders
from tokenred.testing import draw
from tokenred.testing.compare import require, require_close, require_same, untouched
from tokenred.testing.runner import Suite, build_for
from tokenred.testing.sample import model_info

__all__ = ["check_graph"]


def check_graph(
    builder: GraphBuilder | str, *, max_examples: int = 25, derandomize: bool = True
) -> None:
    """Hold a graph builder to its contract and to the traits that it declares.

    A graph over all N0 positions, or None, always; neighbours on the grid, none named twice and
    none its own; weights ``D^-1/2 A D^-1/2``, finite for zero vectors, duplicates and isolated
    nodes; symmetric where undirected; blocks of it as the whole says; inputs left alone; the same
    answer twice, and for an image alone as in a batch; relabelled with the tokens where
    `equivariant`; no look at the grid unless `needs_grid`.

    Args:
        builder: an instance, or a registered name. Grids that its check() refuses are not tried.
        max_examples: examples drawn for each promise.
        derandomize: draw the same examples in every run.

    Raises:
        AssertionError: with the promise that does not hold, and the smallest example found.
    """
    part = graph_builders.create(builder)
    suite = Suite("graph", part, max_examples, derandomize)
    traits = part.traits
    anything, tied = _scenes(), _scenes(flavours=("axes",))
    smooth = _scenes(flavours=("normal",), dtypes=(torch.float64,), width=(4, 8))
    suite.refuses_what_it_must(model_info(8, (4, 4)))
    suite.holds("a graph over the N0 positions, or None, always", anything, _layout)
    suite.holds("no self-loops, no edge twice, no negative values", anything, _edges)
    suite.holds("weights are D^-1/2 A D^-1/2, and finite", anything, _normalised)
    suite.holds("weights_between is the block of dense()", anything, _blocks)
    suite.holds("inputs are not modified", anything, _inputs_stay)
    if traits.deterministic:
        suite.holds("deterministic: the same input, the same graph", anything, _twice)
        suite.holds("an image gets the graph alone that it gets in a batch", smooth | tied, _alone)
    if traits.equivariant:
        suite.holds("equivariant: permuting the tokens relabels the graph", smooth, _relabelled)
    if not traits.needs_grid:
        suite.holds("the grid is not read unless needs_grid is declared", smooth, _any_grid)


@dataclass(frozen=True, eq=False)
class _Scene:
    x0: Float[Tensor, "b N0 c"]
    grid: tuple[int, int]

    def __repr__(self) -> str:
        return f"x0 {tuple(self.x0.shape)} of {self.x0.dtype} on grid {self.grid}: {self.x0}"


@st.composite
def _scenes(
    draw_: st.DrawFn,
    *,
    flavours: tuple[str, ...] = draw.FLAVOURS,
    dtypes: tuple[torch.dtype, ...] = (*draw.DTYPES, torch.float16),
    width: tuple[int, int] = (1, 8),
) -> _Scene:
    grid = draw_(draw.grids())
    x0 = draw_(draw.features(grid[0] * grid[1], flavours=flavours, dtypes=dtypes, width=width))
    return _Scene(x0, grid)


def _made(part: GraphBuilder, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> Graph | None:
    made = build_for(part, model_info(x0.shape[2], grid), x0.dtype)
    with torch.no_grad():
        return cast("Graph | None", made(x0, grid))


def _layout(part: GraphBuilder, scene: _Scene) -> None:
    graph = _made(part, scene.x0, scene.grid)
    if graph is None:
        return
    if not isinstance(graph, Graph):
        raise AssertionError(f"expected a Graph or None, got {graph!r}")
    nodes = scene.grid[0] * scene.grid[1]
    require(
        graph.num_nodes == nodes and graph.batch in (1, scene.x0.shape[0]),
        f"expected {nodes} nodes for a batch of {scene.x0.shape[0]} or for all alike, "
        f"got {graph.num_nodes} for {graph.batch}",
    )
    shape = graph.neighbours.shape
    require(
        graph.values.shape == shape and graph.weights.shape == shape,
        f"neighbours, values and weights differ in shape: {tuple(shape)}, "
        f"{tuple(graph.values.shape)}, {tuple(graph.weights.shape)}",
    )
    require(graph.neighbours.dtype == torch.long, f"neighbours are {graph.neighbours.dtype}")
    inside = (graph.neighbours >= 0) & (graph.neighbours < nodes)
    require(bool(inside.all()), f"some neighbours are off the grid of {nodes} nodes")
    require(graph.grid == scene.grid, f"the graph's grid is {graph.grid}")


def _edges(part: GraphBuilder, scene: _Scene) -> None:
    graph = _made(part, scene.x0, scene.grid)
    if graph is None:
        return
    require(bool((graph.values >= 0).all()), "some values of the adjacency are negative or NaN")
    n = graph.num_nodes
    edge = graph.values > 0
    own = graph.neighbours == torch.arange(n)[None, :, None]
    loops = (own & edge).any(dim=-1).nonzero()
    require(not loops.numel(), f"self-loops at (image, node) {loops.tolist()}")
    times = torch.zeros(graph.batch, n, n).scatter_add(2, graph.neighbours, edge.float())
    require(bool((times <= 1).all()), "some neighbour is listed twice")
    if not graph.directed:
        adjacency = graph.dense(normalized=False)
        require_same(adjacency, adjacency.transpose(1, 2).contiguous(), "undirected: A and Aᵀ")


def _normalised(part: GraphBuilder, scene: _Scene) -> None:
    graph = _made(part, scene.x0, scene.grid)
    if graph is None:
        return
    adjacency = graph.dense(normalized=False).double()
    degree = adjacency.sum(dim=-1)
    root = torch.where(degree > 0, degree, 1.0).rsqrt() * (degree > 0)
    expected = root[:, :, None] * adjacency * root[:, None, :]
    require(bool(graph.weights.isfinite().all()), "some weights are not finite")
    require_close(graph.dense(), expected.to(graph.weights.dtype), "weights and D^-1/2 A D^-1/2")


def _blocks(part: GraphBuilder, scene: _Scene) -> None:
    graph = _made(part, scene.x0, scene.grid)
    if graph is None:
        return
    b, n = scene.x0.shape[:2]
    generator = torch.Generator().manual_seed(n)
    places = torch.rand(b, n, generator=generator).argsort(dim=1)
    kept, gone = places[:, : (n + 1) // 2].clone(), places[:, (n + 1) // 2 :].clone()
    kept[:, -1:], gone[:, -1:] = -1, -1  # tokens that stand for no single patch
    dense = graph.dense().expand(b, n, n)
    image = torch.arange(b)[:, None, None]
    expected = dense[image, kept.clamp_min(0)[:, :, None], gone.clamp_min(0)[:, None, :]]
    expected = expected * ((kept >= 0)[:, :, None] & (gone >= 0)[:, None, :])
    for asked in (graph, graph.with_columns()):
        found = asked.weights_between(kept, gone)
        require_close(found, expected, "weights_between, and the block")


def _inputs_stay(part: GraphBuilder, scene: _Scene) -> None:
    with untouched(x0=scene.x0):
        _made(part, scene.x0, scene.grid)


def _twice(part: GraphBuilder, scene: _Scene) -> None:
    one, other = (_made(part, scene.x0, scene.grid) for _ in range(2))
    require_same(one, other, "asked twice")


def _dense(graph: Graph | None, batch: int) -> Tensor:
    if graph is None:
        return torch.zeros(batch, 0, 0)
    return graph.dense().expand(batch, graph.num_nodes, graph.num_nodes)


def _alone(part: GraphBuilder, scene: _Scene) -> None:
    b = scene.x0.shape[0]
    together = _dense(_made(part, scene.x0, scene.grid), b)
    for i in range(b):
        single = _dense(_made(part, scene.x0[i : i + 1], scene.grid), 1)
        require_close(single, together[i : i + 1], f"image {i} alone and in the batch")


def _relabelled(part: GraphBuilder, scene: _Scene) -> None:
    b, n, _ = scene.x0.shape
    order = torch.rand(n, generator=torch.Generator().manual_seed(n)).argsort()
    graph = _made(part, scene.x0, scene.grid)
    permuted = _made(part, scene.x0[:, order], scene.grid)
    require((graph is None) == (permuted is None), "None for one order of tokens only")
    if graph is not None:
        expected = _dense(graph, b)[:, order][:, :, order]
        require_close(_dense(permuted, b), expected, "the graph of permuted tokens")


def _any_grid(part: GraphBuilder, scene: _Scene) -> None:
    b, n, _ = scene.x0.shape
    one, other = (_dense(_made(part, scene.x0, grid), b) for grid in (scene.grid, (1, n)))
    require_same(one, other, "on its grid, and with the grid called a single row")
