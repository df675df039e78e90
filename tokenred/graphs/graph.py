"""The token graph: neighbour lists over the original positions, built once and never reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from tokenred.core.capture import is_eager, is_tracing, replace
from tokenred.core.errors import ConfigError, shown
from tokenred.core.tensors import gather_tokens

if TYPE_CHECKING:
    import networkx as nx
    from scipy.sparse import csr_array

# Up to this many nodes a matrix is built: it is small compared with an MLP's activations.
_SMALL = 256


@dataclass(frozen=True, eq=False)
class Graph:
    """The edges along which tokens propagate, with their weights.

    Nodes are positions ``0 … N0−1`` on the original grid. Row i lists the positions that i chose,
    at most ``K``; an entry with value 0 is not an edge. Create a graph with `from_neighbours` or
    `from_dense`; a graph shared by all images has a batch of 1.

    Attributes:
        neighbours: ``(b|1, N0, K)`` positions.
        values: ``(b|1, N0, K)`` the adjacency ``A``: 1 for an edge, 0 for an unused entry.
        weights: ``(b|1, N0, K)`` the normalised adjacency ``Â = D^-1/2 A D^-1/2``.
        grid: ``(gh, gw)``.
        directed: whether i may choose j without j choosing i.
        columns: ``(b|1, N0+1, N0+1)``, ``Âᵀ`` before a node without edges, if `with_columns` built
            it; otherwise None.
    """

    neighbours: Int[Tensor, "b N0 K"]
    values: Float[Tensor, "b N0 K"]
    weights: Float[Tensor, "b N0 K"]
    grid: tuple[int, int]
    directed: bool
    columns: Float[Tensor, "b N1 N1"] | None = None

    @classmethod
    def from_neighbours(
        cls,
        neighbours: Int[Tensor, "b N0 K"],
        edges: Bool[Tensor, "b N0 K"] | Float[Tensor, "b N0 K"] | None,
        grid: tuple[int, int],
        *,
        directed: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Graph:
        """Build a normalised graph from neighbour lists.

        A node without edges has weight 0. Source: GTP-ViT, Eq. 9.

        Args:
            neighbours: ``(b, N0, K)``: for each position on the grid, those of K neighbours.
            edges: ``(b, N0, K)``: which of them are there, or their values in the adjacency ``A``,
                such as similarities; None if all are.
            grid: ``(gh, gw)``, with ``N0 = gh · gw``.
            directed: whether i may list j without j listing i.
            dtype: of the weights.

        Raises:
            ConfigError: if the lists do not match the grid, or are no whole numbers.
        """
        nodes = grid[0] * grid[1]
        for given in (neighbours, edges):
            if given is not None and not isinstance(given, Tensor):
                raise ConfigError(f"expected neighbours and edges as tensors, got {shown(given)}.")
        edges = torch.ones_like(neighbours, dtype=torch.bool) if edges is None else edges
        shapes = tuple(neighbours.shape), tuple(edges.shape)
        if shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][1] != nodes:
            raise ConfigError(
                f"a graph on a {grid[0]}×{grid[1]} grid needs neighbours and edges of shape "
                f"(b, {nodes}, K), got {shapes[0]} and {shapes[1]}."
            )
        if neighbours.is_floating_point() or neighbours.dtype == torch.bool:
            raise ConfigError(
                "expected neighbours as positions on the grid, of dtype int64, got "
                f"{neighbours.dtype}; pass a mask or weights as edges."
            )
        neighbours = neighbours.long()
        values = edges.to(dtype)
        degree = values.sum(dim=-1)
        inverse = torch.where(degree > 0, degree.clamp_min(1e-12).rsqrt(), torch.zeros_like(degree))
        # D^-1/2 at the other end of each edge.
        far = inverse.gather(1, neighbours.flatten(1)).view_as(values)
        return cls(neighbours, values, inverse[..., None] * values * far, grid, directed)

    @classmethod
    def from_dense(
        cls,
        adjacency: Bool[Tensor, "b N0 N0"] | Float[Tensor, "b N0 N0"],
        grid: tuple[int, int],
        *,
        directed: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Graph:
        """Build a graph from an adjacency matrix; the simplest way to write a builder.

        Stores all ``N0²`` entries: for thousands of tokens pass lists to `from_neighbours`.
        """
        if adjacency.ndim != 3 or adjacency.shape[1] != adjacency.shape[2]:
            raise ConfigError(f"an adjacency is (b, N0, N0), got {tuple(adjacency.shape)}.")
        b, rows, columns = adjacency.shape
        everyone = torch.arange(columns, device=adjacency.device).expand(b, rows, columns)
        return cls.from_neighbours(everyone, adjacency, grid, directed=directed, dtype=dtype)

    @property
    def num_nodes(self) -> int:
        """``N0``."""
        return self.neighbours.shape[1]

    @property
    def batch(self) -> int:
        """Number of graphs: 1 if all images share it."""
        return self.neighbours.shape[0]

    def degree(self) -> Float[Tensor, "b N0"]:
        """Row degrees of ``A``."""
        return self.values.sum(dim=-1)

    def dense(self, *, normalized: bool = True) -> Float[Tensor, "b N0 N0"]:
        """``Â``, or ``A`` with ``normalized=False``."""
        entries = self.weights if normalized else self.values
        out = entries.new_zeros(self.batch, self.num_nodes, self.num_nodes)
        return out.scatter_add(2, self.neighbours, entries)

    def with_columns(self) -> Graph:
        """The same graph, prepared for many `weights_between` calls; a large one is unchanged.

        With lists a call costs ``O(k·K)``. In a small graph a matrix is built once, ``O(N0²)``, and
        a call costs ``O(k·P)``.
        """
        nodes = self.num_nodes
        if nodes > _SMALL:
            return self
        columns = self.weights.new_zeros(self.batch, nodes + 1, nodes + 1)
        at = self.neighbours.transpose(1, 2)
        columns[:, :-1, :-1].scatter_add_(1, at, self.weights.transpose(1, 2))
        return replace(self, columns=columns)

    def weights_between(
        self, rows: Int[Tensor, "b k"], columns: Int[Tensor, "b P"]
    ) -> Float[Tensor, "b k P"]:
        """The block of ``Â`` between two sets of positions; −1 has no edges."""
        if self.columns is None:
            return self._from_lists(rows, columns)
        b, nodes = rows.shape[0], self.columns.shape[1]
        if is_eager() and b == 1 and rows.device.type == "cpu":  # one step instead of three
            return self.columns[0][columns[:, None, :], rows[:, :, None]]
        # Cells by number; one at −1 is in the last row, or at the end of the row before.
        at = torch.add(rows[:, :, None], columns[:, None, :], alpha=nodes) % nodes**2
        cells = self.columns.flatten(1).expand(b, -1)
        return cells.gather(1, at.flatten(1)).view_as(at)

    def _from_lists(
        self, rows: Int[Tensor, "b k"], columns: Int[Tensor, "b P"]
    ) -> Float[Tensor, "b k P"]:
        """The block from the lists, without building the matrix."""
        b, p = columns.shape
        nodes = self.num_nodes
        at = rows.clamp_min(0)
        near, weight = _rows(self.neighbours, at), _rows(self.weights, at)
        weight = weight * (rows >= 0)[..., None].to(weight.dtype)
        # Column of each position, with a spare column for positions that are not requested.
        column = torch.full((b, nodes + 1), p, dtype=near.dtype, device=near.device)
        column = column.scatter(
            1,
            torch.where(columns >= 0, columns, nodes),
            torch.arange(p, device=near.device).expand(b, p),
        )
        place = column.gather(1, near.flatten(1)).view_as(near)
        out = weight.new_zeros(b, rows.shape[1], p + 1).scatter_add(2, place, weight)
        return out[..., :p]

    def to_scipy(self, i: int = 0) -> csr_array:
        """``Â`` of image i as a scipy sparse array, without unused entries."""
        from scipy.sparse import csr_array

        rows, columns, weights = self._edges(i)
        shape = (self.num_nodes, self.num_nodes)
        return csr_array((weights, (rows, columns)), shape=shape)

    def to_networkx(self, i: int = 0) -> nx.Graph[int]:
        """The graph of image i as a networkx ``DiGraph`` (``Graph`` if undirected).

        Nodes are positions with attribute ``pos=(column, −row)``; edges carry ``weight`` (``Â``).
        """
        import networkx as nx

        graph: nx.Graph[int] = nx.DiGraph() if self.directed else nx.Graph()
        for node in range(self.num_nodes):
            row, column = divmod(node, self.grid[1])
            graph.add_node(node, pos=(column, -row))
        for row, column, weight in zip(*self._edges(i), strict=True):
            graph.add_edge(int(row), int(column), weight=float(weight))
        return graph

    def _edges(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        if not 0 <= i < self.batch and self.batch > 1:
            raise ConfigError(f"this graph has {self.batch} images, there is no image {i}.")
        at = 0 if self.batch == 1 else i
        rows, places = self.values[at].nonzero(as_tuple=True)
        columns = self.neighbours[at][rows, places]
        weights = self.weights[at][rows, places].detach()
        return rows.cpu(), columns.cpu(), weights.float().cpu()


def _rows(table: Shaped[Tensor, "one n k"], at: Int[Tensor, "b m"]) -> Shaped[Tensor, "b m k"]:
    """Rows of each image's table, or of the table that all images share."""
    if is_tracing():
        # At batch size 1 it is unknown whether the table is shared; this is correct in both cases.
        return gather_tokens(table.expand(at.shape[0], -1, -1), at)
    return F.embedding(at, table[0]) if table.shape[0] == 1 else gather_tokens(table, at)
