"""The promises of a graph builder."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.core.errors import shown
from tokenred.graphs import Graph, GraphBuilder
from tokenred.graphs.base import graph_builders
from tokenred.testing import draw
from tokenred.testing.sample import Sample
from tokenred.testing.suite import Suite, require, require_close, require_same

Answer: TypeAlias = Graph | Tensor | None
"""What a builder returned; or its dense matrix, after relabelling."""


def check_graph(builder: GraphBuilder | str, *, max_examples: int = 25) -> None:
    """Check that a graph builder keeps its contract and the traits that it declares.

    The result is always a graph over all N0 positions, or always None. Neighbours are on the grid,
    without self-loops or repeated edges. Weights are ``D^-1/2 A D^-1/2``, and finite even for zero
    vectors, duplicates and isolated nodes. An undirected graph is symmetric, and its blocks agree
    with the whole. Inputs are not modified. Results are deterministic, and the same for an image
    alone and in a batch. With `equivariant`, permuting the tokens relabels the graph; without
    `needs_grid`, the grid is not read.

    Args:
        builder: an instance, or a registered name. Grids that its check() refuses are not tried.
        max_examples: as for `check_scorer`.

    Raises:
        AssertionError: with the broken promise and the smallest example found.
    """
    suite = _GraphSuite(graph_builders.create(builder), max_examples)
    anything = draw.samples(whole=True, dtypes=(*draw.DTYPES, torch.float16))
    tied, smooth = draw.samples(whole=True, flavours=("axes",)), draw.smooth_samples(whole=True)
    for promise, body in (
        ("a graph over the N0 positions, or None, always", _layout),
        ("no self-loops, no edge twice, no negative values", _edges),
        (suite.finite, _normalised),
        ("weights_between is the block of dense()", _blocks),
    ):
        suite.holds(promise, anything, suite.of_graph(body))
    suite.keeps_common_promises(anything, batches=smooth | tied, smooth=smooth)
    suite.tell()


class _GraphSuite(Suite[GraphBuilder, Answer]):
    kind = "graph"
    answer = "graph"
    finite = "weights are D^-1/2 A D^-1/2, and finite"

    def call(self, case: Sample) -> tuple[Callable[[], Answer], Mapping[str, object]]:
        made, x0 = self.built(case), case.state.image.contiguous()
        return lambda: made(x0, case.state.grid), {"x0": x0}

    def numbers(self, answer: Answer) -> Mapping[str, Tensor]:
        if not isinstance(answer, Graph):
            return {}
        return {"values of the adjacency": answer.values, "some weights": answer.weights}

    def of_graph(self, body: Callable[[Graph, Sample], None]) -> Callable[[Sample], None]:
        """Apply a promise to the result of the builder, which must be a graph or None."""

        def on(case: Sample) -> None:
            graph = self.run(case)
            if isinstance(graph, Graph):
                body(graph, case)
            elif graph is not None:
                raise AssertionError(f"expected a Graph or None, got {shown(graph)}")

        return on

    def agree(self, one: Answer, other: Answer, what: str, case: Sample) -> None:
        require((one is None) == (other is None), f"{what}: only one of them is None")
        if one is not None and other is not None:
            # A graph may serve all images of a batch.
            first, second = torch.broadcast_tensors(_dense(one), _dense(other))
            require_close(first, second, what)

    def moved(self, answer: Answer, order: Int[Tensor, "b n"]) -> Answer:
        if answer is None:
            return None
        image = torch.arange(len(order))[:, None, None]
        dense = _dense(answer).expand(len(order), -1, -1)
        return dense[image, order[:, :, None], order[:, None, :]]

    def told(self, answer: Answer) -> object:
        return None if answer is None else _dense(answer)


def _layout(graph: Graph, case: Sample) -> None:
    nodes = case.state.num_patches
    require(
        graph.num_nodes == nodes and graph.batch in (1, case.images),
        f"expected {nodes} nodes for a batch of {case.images} or one shared graph, "
        f"got {graph.num_nodes} for {graph.batch}",
    )
    shape = graph.neighbours.shape
    require(
        graph.values.shape == shape and graph.weights.shape == shape,
        f"neighbours, values and weights have different shapes: {tuple(shape)}, "
        f"{tuple(graph.values.shape)}, {tuple(graph.weights.shape)}",
    )
    require(graph.neighbours.dtype == torch.long, f"neighbours are {graph.neighbours.dtype}")
    inside = (graph.neighbours >= 0) & (graph.neighbours < nodes)
    require(inside, f"some neighbours are off the grid of {nodes} nodes")
    require(graph.grid == case.state.grid, f"the graph's grid is {graph.grid}")


def _edges(graph: Graph, case: Sample) -> None:
    require(graph.values >= 0, "some values of the adjacency are negative")
    n, edge = graph.num_nodes, graph.values > 0
    own = graph.neighbours == torch.arange(n)[None, :, None]
    loops = (own & edge).any(dim=-1).nonzero()
    require(not loops.numel(), f"self-loops at (image, node) {loops.tolist()}")
    times = torch.zeros(graph.batch, n, n).scatter_add(2, graph.neighbours, edge.float())
    require(times <= 1, "some neighbour is listed twice")
    if not graph.directed:
        adjacency = graph.dense(normalized=False)
        require_same(adjacency, adjacency.transpose(1, 2).contiguous(), "undirected: A and Aᵀ")


def _normalised(graph: Graph, case: Sample) -> None:
    adjacency = graph.dense(normalized=False).double()
    degree = adjacency.sum(dim=-1)
    root = torch.where(degree > 0, degree, 1.0).rsqrt() * (degree > 0)
    expected = (root[:, :, None] * adjacency * root[:, None, :]).to(graph.weights.dtype)
    require_close(graph.dense(), expected, "weights and D^-1/2 A D^-1/2")


def _blocks(graph: Graph, case: Sample) -> None:
    b, n = case.state.index.shape
    places = torch.rand(b, n, generator=torch.Generator().manual_seed(n)).argsort(dim=1)
    kept, gone = places[:, : (n + 1) // 2].clone(), places[:, (n + 1) // 2 :].clone()
    kept[:, -1:], gone[:, -1:] = -1, -1  # tokens that stand for no single patch
    dense = graph.dense().expand(b, n, n)
    image = torch.arange(b)[:, None, None]
    expected = dense[image, kept.clamp_min(0)[:, :, None], gone.clamp_min(0)[:, None, :]]
    expected = expected * ((kept >= 0)[:, :, None] & (gone >= 0)[:, None, :])
    for asked in (graph, graph.with_columns()):
        found = asked.weights_between(kept, gone)
        require_close(found, expected, "weights_between, and the block")


def _dense(graph: Graph | Tensor) -> Tensor:
    return graph if isinstance(graph, Tensor) else graph.dense()
