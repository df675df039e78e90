"""Statistics of a token graph: pure functions of an adjacency matrix.

The matrix is sparse, ``(N0, N0)`` of 0 and 1 without a diagonal; row i has a 1 for each position
that i chose. A token dropped at j propagates to the kept rows that chose j, so a token's
*in*-degree is the number of tokens that can receive its feature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokenred.core.errors import InputError
from tokenred.graphs import Graph

if TYPE_CHECKING:
    from scipy.sparse import csr_array

GRAPH_STATISTICS = {
    "out_degree": "neighbours that a token chose, mean",
    "in_degree_sd": "in-degree, standard deviation over tokens",
    "in_degree_max": "in-degree, largest",
    "unchosen": "tokens that no token chose, share",
    "reciprocity": "edges whose reverse is also an edge, share",
    "clustering": "clustering coefficient, mean over tokens",
    "components": "weakly connected components",
    "spectral_gap": "spectral gap of the normalised adjacency",
    "edge_length": "edge length, mean (patches)",
    "far_share": "edges beyond the 8 grid neighbours, share",
    "far_length": "length of these, mean (patches)",
    "chance_length": "distance of two random patches, mean (patches)",
}
"""The meaning of the names in frames."""


def adjacency(graph: Graph, i: int = 0) -> csr_array:
    """``A`` of image i: 1 for an edge, regardless of its weight; self-loops are excluded.

    Raises:
        ConfigError: if the graph does not have the image.
    """
    from scipy.sparse import csr_array

    found = graph.to_scipy(i).tocoo()
    edges = found.row != found.col
    at = (found.row[edges], found.col[edges])
    matrix = csr_array((np.ones(len(at[0])), at), shape=found.shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1  # a neighbour listed twice is one edge
    return matrix


def in_degree(matrix: csr_array) -> NDArray[np.float64]:
    """``(N0,)`` how many tokens chose each."""
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).reshape(-1)


def reciprocity(matrix: csr_array) -> float:
    """Share of the edges whose reverse is an edge too; NaN without edges."""
    return float(matrix.multiply(matrix.T).sum() / matrix.nnz) if matrix.nnz else float("nan")


def clustering(matrix: csr_array) -> float:
    """Mean clustering coefficient of the undirected graph.

    The share of pairs of a token's neighbours that are neighbours of each other; 0 for a token with
    fewer than two. Source: Watts and Strogatz, "Collective dynamics of 'small-world'
    networks", Nature 393, 1998.
    """
    both = _undirected(matrix)
    degree = in_degree(both)
    closed = in_degree((both @ both).multiply(both))
    pairs = degree * (degree - 1)
    return float(np.divide(closed, pairs, out=np.zeros_like(degree), where=pairs > 0).mean())


def weak_components(matrix: csr_array) -> int:
    """Number of weakly connected components."""
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(matrix, directed=True, connection="weak")[0])


def spectral_gap(matrix: csr_array) -> float:
    """How quickly features would become equal under repeated propagation, 0 … 2.

    ``1 − λ2``, with λ2 the second largest eigenvalue of ``D^-1/2 U D^-1/2``, where U is the
    undirected adjacency and D its degrees. This is the normalised adjacency of GTP's Eq. 9 made
    symmetric, because the eigenvalues of a directed graph may be complex. It is the second smallest
    eigenvalue of the normalised Laplacian (Chung, "Spectral Graph Theory", 1997). 0 if the graph is
    disconnected, NaN for a single token. ``O(N0³)``.
    """
    from scipy.linalg import eigh

    n = matrix.shape[0]
    if n < 2:
        return float("nan")
    if weak_components(matrix) > 1:
        return 0.0
    both = _undirected(matrix).toarray()
    root = 1 / np.sqrt(both.sum(axis=1))
    second = eigh(root[:, None] * both * root, eigvals_only=True, subset_by_index=[n - 2, n - 2])
    return float(1 - second[0])


def edge_lengths(
    matrix: csr_array, grid: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The length of each edge, and whether it extends beyond the grid neighbours.

    Returns:
        Euclidean distance in patches, and whether the ends are not among the 8 grid neighbours. In
        a mixed graph these are the purely semantic edges.

    Raises:
        InputError: if the graph has another number of nodes than the grid.
    """
    if matrix.shape[0] != grid[0] * grid[1]:
        raise InputError(
            f"expected a graph of {grid[0] * grid[1]} nodes for a {grid[0]}×{grid[1]} grid, got "
            f"{matrix.shape[0]}."
        )
    down, across = (apart[matrix.nonzero()] for apart in _apart(grid))
    return np.hypot(down, across), np.maximum(down, across) > 1


def describe(matrix: csr_array, grid: tuple[int, int]) -> dict[str, float]:
    """All of `GRAPH_STATISTICS`; NaN if there is nothing to average."""
    chosen = in_degree(matrix)
    lengths, far = edge_lengths(matrix, grid)
    chance = np.hypot(*_apart(grid))[~np.eye(len(chosen), dtype=bool)]
    return {
        "out_degree": float(chosen.mean()),
        "in_degree_sd": float(chosen.std()),
        "in_degree_max": float(chosen.max()),
        "unchosen": float((chosen == 0).mean()),
        "reciprocity": reciprocity(matrix),
        "clustering": clustering(matrix),
        "components": float(weak_components(matrix)),
        "spectral_gap": spectral_gap(matrix),
        "edge_length": _mean(lengths),
        "far_share": _mean(far),
        "far_length": _mean(lengths[far]),
        "chance_length": _mean(chance),
    }


def _undirected(matrix: csr_array) -> csr_array:
    return matrix.maximum(matrix.T).tocsr()


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _apart(grid: tuple[int, int]) -> NDArray[np.float64]:
    """``(2, N0, N0)`` rows and columns between each two patches."""
    places = np.indices(grid, dtype=np.float64).reshape(2, -1)
    return np.asarray(np.abs(places[:, :, None] - places[:, None, :]))
