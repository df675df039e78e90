"""The spatial graph is the king's graph of chess; no graph is none."""

import networkx as nx
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.graphs import NoGraph, Spatial
from tokenred.graphs.base import graph_builders

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
GRIDS = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(1, 6)), st.tuples(st.just(1), st.integers(1, 20))
)


def kings(grid: tuple[int, int]) -> np.ndarray:
    """Who reaches whom in one move of a king: the strong product of two paths."""
    board = nx.strong_product(nx.path_graph(grid[0]), nx.path_graph(grid[1]))
    squares = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    return nx.to_numpy_array(board, nodelist=squares)


@QUICK
@given(GRIDS, st.booleans())
def test_it_is_the_kings_graph(grid: tuple[int, int], upright: bool) -> None:
    grid = grid[::-1] if upright else grid
    graph = Spatial()(torch.zeros(2, grid[0] * grid[1], 3), grid)
    np.testing.assert_array_equal(graph.dense(normalized=False)[0].numpy(), kings(grid))
    assert graph.batch == 1
    assert not graph.directed


def test_the_features_do_not_matter_and_half_precision_is_raised() -> None:
    graph = Spatial()(torch.full((1, 6, 2), torch.nan, dtype=torch.bfloat16), (2, 3))
    assert graph.weights.dtype == torch.float32
    assert graph.degree().tolist() == [[3, 5, 3, 3, 5, 3]]


def test_no_graph_builds_nothing() -> None:
    assert NoGraph()(torch.full((2, 4, 3), torch.nan), (2, 2)) is None
    assert graph_builders.create("NONE") == NoGraph()
