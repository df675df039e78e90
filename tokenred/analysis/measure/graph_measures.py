"""Statistics of a token graph, from its adjacency matrix.

The matrix is sparse, ``(N0, N0)`` of 0 and 1 without a diagonal; row i has a 1 for each position
that i chose. A token dropped at j propagates to the kept rows that chose j, so a token's
*in*-degree is the number of tokens that can receive its feature.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from tokenred.graphs import Graph

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


def describe(matrix: csr_array, grid: tuple[int, int]) -> dict[str, float]:
    """All of `GRAPH_STATISTICS`; NaN if there is nothing to average.

    - The clustering coefficient is of the undirected graph: the share of pairs of a token's
      neighbours that are neighbours of each other, 0 for fewer than two (Watts and Strogatz,
      "Collective dynamics of 'small-world' networks", Nature 393, 1998).
    - The spectral gap, 0 … 2, says how quickly features would become equal under repeated
      propagation: the second smallest eigenvalue of the normalised Laplacian of the undirected
      graph (Chung, "Spectral Graph Theory", 1997), which is the normalised adjacency of GTP's Eq. 9
      made symmetric, because the eigenvalues of a directed graph may be complex. 0 if the graph is
      disconnected. ``O(N0³)``.
    - Lengths are Euclidean. In a mixed graph, edges beyond the 8 grid neighbours are the purely
      semantic ones.
    """
    chosen, edges = in_degree(matrix), matrix.nonzero()
    both = matrix.maximum(matrix.T).tocsr()
    degree, closed = in_degree(both), in_degree((both @ both).multiply(both))
    pairs = degree * (degree - 1)
    components = int(connected_components(matrix, directed=True, connection="weak")[0])
    places = np.indices(grid, dtype=np.float64).reshape(2, -1)
    apart = np.abs(places[:, :, None] - places[:, None, :])  # rows and columns between patches
    distance = np.hypot(*apart)
    lengths, far = distance[edges], apart.max(axis=0)[edges] > 1
    mutual = matrix.multiply(matrix.T).sum()
    return {
        "out_degree": float(chosen.mean()),
        "in_degree_sd": float(chosen.std()),
        "in_degree_max": float(chosen.max()),
        "unchosen": float((chosen == 0).mean()),
        "reciprocity": float(mutual / matrix.nnz) if matrix.nnz else float("nan"),
        "clustering": float(np.divide(closed, pairs, out=pairs * 0, where=pairs > 0).mean()),
        "components": float(components),
        "spectral_gap": _spectral_gap(both.toarray()) if components == 1 else 0.0,
        "edge_length": _mean(lengths),
        "far_share": _mean(far),
        "far_length": _mean(lengths[far]),
        "chance_length": _mean(distance[~np.eye(len(distance), dtype=bool)]),
    }


def _spectral_gap(adjacency: NDArray[np.float64]) -> float:
    n = len(adjacency)
    if n < 2:
        return float("nan")
    root = 1 / np.sqrt(adjacency.sum(axis=1))
    scaled = root[:, None] * adjacency * root
    return float(1 - eigh(scaled, eigvals_only=True, subset_by_index=[n - 2, n - 2])[0])


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")
