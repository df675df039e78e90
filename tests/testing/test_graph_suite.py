"""`check_graph`: every graph of the library passes, every planted fault is found and named."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tokenred.core.part import Traits
from tokenred.graphs import Graph, GraphBuilder, Semantic
from tokenred.graphs.base import graph_builders
from tokenred.testing import check_graph

NAMES = [entry.name for entry in graph_builders if entry.source.startswith("tokenred.")]


class Nearest(GraphBuilder):
    """Sound: all other tokens. The faults below change the adjacency or the graph."""

    def __call__(self, x0: Tensor, grid: tuple[int, int]) -> Graph | None:
        n = x0.shape[1]
        adjacency = (~torch.eye(n, dtype=torch.bool)).expand(len(x0), n, n)
        return self.spoil(Graph.from_dense(self.edges(adjacency, x0, grid), grid))

    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        return adjacency

    def spoil(self, graph: Graph) -> Graph | None:
        return graph


class SelfLoop(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        return torch.ones_like(adjacency)


class RowNormalised(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        return adjacency.triu()

    def spoil(self, graph: Graph) -> Graph:
        return replace(graph, weights=graph.values / graph.degree().clamp_min(1)[..., None])


class LonelyNaN(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        return adjacency & (torch.arange(x0.shape[1]) > 0)[:, None]

    def spoil(self, graph: Graph) -> Graph:
        root = graph.degree().rsqrt()
        return replace(graph, weights=root[..., None] * graph.values * root[:, None, :])


class TooFewNodes(Nearest):
    def spoil(self, graph: Graph) -> Graph:
        parts = (graph.neighbours, graph.values, graph.weights)
        return Graph(*(part[:, 1:] for part in parts), graph.grid, graph.directed)


class OffTheGrid(Nearest):
    def spoil(self, graph: Graph) -> Graph:
        return replace(graph, neighbours=graph.neighbours + 1)


class Twice(Nearest):
    def spoil(self, graph: Graph) -> Graph:
        both = torch.cat((graph.neighbours, graph.neighbours), dim=-1)
        edges = torch.cat((graph.values, graph.values), dim=-1)
        return Graph.from_neighbours(both, edges, graph.grid)


class OneWay(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        return adjacency.triu()

    def spoil(self, graph: Graph) -> Graph:
        return replace(graph, directed=False)


class InPlace(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        x0.abs_()
        return adjacency


class Dice(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        return adjacency & (torch.rand(adjacency.shape) < 0.5)


class OverTheBatch(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        big = x0.float().sum(dim=-1) > x0.float().sum(dim=-1).mean()
        return adjacency & big[:, :, None]


class Forwards(Nearest):
    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        return adjacency.triu()


class SecretGrid(Nearest):
    traits: ClassVar[Traits] = Traits(equivariant=False)

    def edges(self, adjacency: Tensor, x0: Tensor, grid: tuple[int, int]) -> Tensor:
        row = torch.arange(x0.shape[1]) // grid[1]
        return adjacency & (row[:, None] == row[None, :])


FAULTS = [
    (SelfLoop(), "no self-loops", r"self-loops at \(image, node\) \[\[0, 0\]\]"),
    (RowNormalised(), r"weights are D\^-1/2 A D\^-1/2", "off by up to"),
    (LonelyNaN(), r"weights are D\^-1/2 A D\^-1/2", "some weights are not finite"),
    (TooFewNodes(), "a graph over the N0 positions", "expected 1 nodes .* got 0"),
    (OffTheGrid(), "a graph over the N0 positions", "off the grid"),
    (Twice(), "no edge twice", "some neighbour is listed twice"),
    (OneWay(), "no self-loops, no edge twice", "undirected: A and Aᵀ"),
    (InPlace(), "inputs are not modified", "x0 was changed in place"),
    (Dice(), "deterministic: the same input", "asked twice|tried again"),
    (OverTheBatch(), "treated alone as in a batch", r"image \d alone"),
    (Forwards(), "equivariant: permuting the tokens", "the graph for permuted tokens"),
    (SecretGrid(), "the grid is not read", "called a single row"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_keeps_its_promises(name: str) -> None:
    check_graph(name, max_examples=10)


@pytest.mark.parametrize(
    ("builder", "promise", "found"), FAULTS, ids=[type(fault[0]).__name__ for fault in FAULTS]
)
def test_a_planted_fault_is_found(builder: GraphBuilder, promise: str, found: str) -> None:
    message = rf"(?s)graph {type(builder).__name__}\(\) breaks its contract.*{promise}.*(?:{found})"
    with pytest.raises(AssertionError, match=message):
        check_graph(builder)


def test_a_sound_graph_passes() -> None:
    check_graph(Nearest())


def test_a_graph_that_no_drawn_grid_can_hold_is_reported() -> None:
    with pytest.raises(AssertionError, match="refuses every model drawn"):
        check_graph(Semantic(M=1000))
