"""Graphs whose numbers are known, and networkx as a second opinion on others."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.analysis.measure.graph_measures import GRAPH_STATISTICS, adjacency, describe
from tokenred.core.errors import ConfigError
from tokenred.graphs import Graph
from tokenred.graphs.mixed import Mixed
from tokenred.graphs.spatial import Spatial


def _described(edges: list[tuple[int, int]], grid: tuple[int, int]) -> dict[str, float]:
    n = grid[0] * grid[1]
    dense = torch.zeros(1, n, n)
    for i, j in edges:
        dense[0, i, j] = 1
    return describe(adjacency(Graph.from_dense(dense, grid)), grid)


def test_grid_of_eight_neighbours() -> None:
    graph = Spatial()(torch.randn(1, 20, 4), (4, 5))
    found = describe(adjacency(graph), (4, 5))
    assert list(found) == list(GRAPH_STATISTICS)
    # 4 corners have 3 neighbours, 10 borders 5, 6 insides 8.
    assert found["out_degree"] == pytest.approx((4 * 3 + 10 * 5 + 6 * 8) / 20)
    assert (found["in_degree_max"], found["unchosen"], found["reciprocity"]) == (8, 0, 1)
    assert (found["components"], found["far_share"]) == (1, 0)
    assert math.isnan(found["far_length"])
    # 31 of the edges are straight, 24 diagonal.
    assert found["edge_length"] == pytest.approx((31 + 24 * math.sqrt(2)) / 55)


def test_pieces_and_lone_nodes() -> None:
    two = _described([(0, 1), (1, 0), (2, 3)], (1, 5))
    assert (two["components"], two["spectral_gap"], two["unchosen"]) == (3, 0, pytest.approx(2 / 5))
    found = _described([], (1, 3))
    assert (found["components"], found["clustering"], found["spectral_gap"]) == (3, 0, 0)
    assert all(math.isnan(found[name]) for name in ("reciprocity", "edge_length", "far_length"))
    assert math.isnan(_described([], (1, 1))["spectral_gap"])


def test_lengths_by_hand() -> None:
    # On 2×4 positions: 0→1 beside, 0→5 diagonal, 0→3 three across, 7→0 three and one.
    found = _described([(0, 1), (0, 5), (0, 3), (7, 0)], (2, 4))
    lengths = [1, math.sqrt(2), 3, math.sqrt(10)]
    assert found["edge_length"] == pytest.approx(np.mean(lengths))
    assert found["far_share"] == 0.5
    assert found["far_length"] == pytest.approx(np.mean(lengths[2:]))
    pairs = [math.dist(divmod(i, 4), divmod(j, 4)) for i in range(8) for j in range(i)]
    assert found["chance_length"] == pytest.approx(np.mean(pairs))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.floats(0, 1), st.integers(0, 999))
def test_networkx_agrees(n: int, density: float, seed: int) -> None:
    directed = nx.gnp_random_graph(n, density, seed=seed, directed=True)
    found = _described(list(directed.edges), (1, n))
    plain = directed.to_undirected()
    degrees = [d for _, d in directed.in_degree]
    assert found["in_degree_sd"] == pytest.approx(np.std(degrees))
    assert found["in_degree_max"] == max(degrees)
    assert found["clustering"] == pytest.approx(nx.average_clustering(plain))
    assert found["components"] == nx.number_weakly_connected_components(directed)
    if directed.number_of_edges():
        assert found["reciprocity"] == pytest.approx(nx.overall_reciprocity(directed))
    if nx.is_connected(plain):
        laplacian = nx.normalized_laplacian_matrix(plain, nodelist=range(n)).toarray()
        assert found["spectral_gap"] == pytest.approx(np.linalg.eigvalsh(laplacian)[1])


def test_adjacency_is_of_edges_not_weights() -> None:
    # 2 has no edges, so the weight of 0→2 is 0; that is an edge all the same. 1→1 is none, and
    # 0→1, listed twice, is one.
    near = torch.tensor([[[1, 2, 1], [1, 0, 0], [0, 0, 0]]])
    there = torch.tensor([[[1, 1, 1], [1, 1, 0], [0, 0, 0]]]).bool()
    matrix = adjacency(Graph.from_neighbours(near, there, (1, 3)))
    assert matrix.toarray().tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    graph = Mixed(M=3)(torch.randn(3, 12, 6), (3, 4))
    for i, dense in enumerate(graph.dense(normalized=False)):
        np.testing.assert_array_equal(adjacency(graph, i).toarray(), dense)
    with pytest.raises(ConfigError, match="3 images"):
        adjacency(graph, 3)
