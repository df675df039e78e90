"""`Graph`: normalisation, views and blocks, against NumPy, networkx and scipy."""

import re

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.core.errors import ConfigError
from tokenred.graphs import Graph

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
GRID = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def adjacencies(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    """Directed, without self-loops, some nodes isolated or with all edges."""
    grid = draw(GRID)
    n, b = grid[0] * grid[1], draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    edges = rng.random((b, n, n)) < draw(st.sampled_from((0.0, 0.2, 0.7, 1.0)))
    edges[rng.random((b, n)) < 0.2] = False
    edges[:, np.arange(n), np.arange(n)] = False
    return edges, grid


def as_lists(edges: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Neighbour lists of an adjacency; free places point at the node itself."""
    b, n, _ = edges.shape
    width = max(1, int(edges.sum(axis=2).max(initial=0)))
    near = np.broadcast_to(np.arange(n)[None, :, None], (b, n, width)).copy()
    there = np.zeros((b, n, width), dtype=bool)
    for image, row in np.ndindex(b, n):
        chosen = edges[image, row].nonzero()[0]
        near[image, row, : len(chosen)] = chosen
        there[image, row, : len(chosen)] = True
    return torch.from_numpy(near), torch.from_numpy(there)


@QUICK
@given(adjacencies(), st.data())
def test_blocks_are_those_of_the_whole(
    drawn: tuple[np.ndarray, tuple[int, int]], data: st.DataObject
) -> None:
    edges, grid = drawn
    near, there = as_lists(edges)
    b, n, _ = edges.shape
    shared = data.draw(st.booleans())
    graph = (
        Graph.from_neighbours(near[:1], there[:1], grid)
        if shared
        else Graph.from_neighbours(near, there, grid)
    )
    order = torch.stack([torch.tensor(data.draw(st.permutations(range(n)))) for _ in range(b)])
    cut = data.draw(st.integers(0, n))
    rows, columns = order[:, :cut].clone(), order[:, cut:].clone()
    if cut and data.draw(st.booleans()):
        rows[:, 0] = -1
    if cut < n and data.draw(st.booleans()):
        columns[:, -1] = -1
    block = graph.weights_between(rows, columns)
    assert block.shape == (b, cut, n - cut)
    ready = graph.with_columns()
    assert ready.columns is not None
    assert torch.equal(ready.weights_between(rows, columns), block)
    dense = graph.dense().numpy()
    for image, i, j in np.ndindex(b, cut, n - cut):
        row, column = int(rows[image, i]), int(columns[image, j])
        known = row >= 0 and column >= 0
        expected = dense[0 if shared else image, row, column] if known else 0.0
        assert block[image, i, j].item() == pytest.approx(expected, abs=1e-7)


@QUICK
@given(adjacencies(), st.booleans())
def test_networkx_and_scipy_show_the_same(
    drawn: tuple[np.ndarray, tuple[int, int]], directed: bool
) -> None:
    edges, grid = drawn
    if not directed:
        edges = edges | edges.transpose(0, 2, 1)
    graph = Graph.from_dense(torch.from_numpy(edges), grid, directed=directed)
    for image in range(graph.batch):
        dense = graph.dense()[image].numpy()
        sparse = graph.to_scipy(image)
        np.testing.assert_allclose(sparse.toarray(), dense, atol=1e-7)
        assert sparse.nnz == edges[image].sum()
        np.testing.assert_array_equal(graph.degree()[image].numpy(), edges[image].sum(axis=1))
        seen = graph.to_networkx(image)
        assert seen.is_directed() is directed
        np.testing.assert_allclose(
            nx.to_numpy_array(seen, nodelist=range(graph.num_nodes)), dense, atol=1e-7
        )
        assert set(seen.edges) | {(j, i) for i, j in seen.edges if not directed} == set(
            zip(*(axis.tolist() for axis in edges[image].nonzero()), strict=True)
        )
    place = {node: divmod(node, grid[1]) for node in range(graph.num_nodes)}
    positions = nx.get_node_attributes(graph.to_networkx(), "pos")
    assert positions == {node: (column, -row) for node, (row, column) in place.items()}


def test_an_edge_to_an_isolated_node_weighs_nothing() -> None:
    graph = Graph.from_dense(torch.tensor([[[0, 1], [0, 0]]]), (1, 2))
    assert torch.equal(graph.dense(), torch.zeros(1, 2, 2))
    # It is an edge all the same, and both views keep it.
    assert graph.to_scipy().nnz == 1
    assert list(graph.to_networkx().edges(data="weight")) == [(0, 1, 0.0)]


def test_lists_that_do_not_cover_the_grid_are_refused() -> None:
    lists = torch.zeros(1, 3, 1, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"2×2 grid needs .* \(b, 4, K\), got \(1, 3, 1\)"):
        Graph.from_neighbours(lists, lists.bool(), (2, 2))
    for edges in (lists.float(), None):
        with pytest.raises(ConfigError, match=r"positions .* got torch\.float32; pass a mask"):
            Graph.from_neighbours(lists.float(), edges, (1, 3))
    for shape in ((1, 2, 3), (2, 2)):
        with pytest.raises(ConfigError, match=re.escape(f"(b, N0, N0), got {shape}")):
            Graph.from_dense(torch.zeros(shape), (1, 2))
    graph = Graph.from_dense(torch.zeros(2, 1, 1), (1, 1))
    for view in (graph.to_scipy, graph.to_networkx):
        with pytest.raises(ConfigError, match="has 2 images, there is no image 2"):
            view(2)


def test_lists_without_edges_have_all_of_them() -> None:
    lists = torch.tensor([[[1], [2], [0]]], dtype=torch.int32)
    graph = Graph.from_neighbours(lists, None, (1, 3))
    assert torch.equal(graph.dense(), torch.eye(3)[[1, 2, 0]][None])


def test_only_a_small_graph_lays_out_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = torch.ones(1, 9, 9, dtype=torch.bool)
    graph = Graph.from_dense(edges, (3, 3))
    ready = graph.with_columns()
    assert ready.columns is not None
    assert torch.equal(ready.columns[:, :-1, :-1], graph.dense().mT)
    assert not ready.columns[:, -1].any()
    assert not ready.columns[:, :, -1].any()
    monkeypatch.setattr("tokenred.graphs.graph._SMALL", 8)
    assert graph.with_columns() is graph
