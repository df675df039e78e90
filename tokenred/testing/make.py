"""Tensors of every flavour that parts may meet, made from a seed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.tensors import at_least_fp32
from tokenred.graphs import Graph, Spatial

__all__ = ["graph_of", "head_rows", "positions", "random_graph", "rows", "sizes_of"]


def rows(
    generator: torch.Generator, shape: tuple[int, ...], flavour: str, dtype: torch.dtype
) -> Float[Tensor, "b n c"]:
    """Vectors of one flavour, for a shape ``(b, n, c)``.

    Args:
        flavour: ``"normal"``; ``"duplicates"``, few different ones; ``"zeros"``, some of them
            zero; ``"same"``, all equal; ``"axes"``, unit vectors along the axes, whose cosines
            have no rounding; ``"large"``, long ones.
    """
    b, n, c = shape
    x = torch.randn(b, n, c, generator=generator, dtype=torch.float64)
    if flavour == "duplicates":
        pick = torch.randint(0, 1 + n // 3, (b, n, 1), generator=generator)
        x = x.gather(1, pick.expand(b, n, c))
    elif flavour == "zeros":
        zero = torch.rand(b, n, 1, generator=generator) < 0.4
        zero[:, torch.randint(0, n, (1,), generator=generator)] = True
        x = x.masked_fill(zero, 0.0)
    elif flavour == "same":
        x = x[:, :1].expand(b, n, c)
    elif flavour == "axes":
        axis = torch.randint(0, c, (b, n), generator=generator)
        x = F.one_hot(axis, c)
    elif flavour == "large":
        x = x * 30
    return x.to(dtype).contiguous()


def random_graph(
    generator: torch.Generator, batch: int, grid: tuple[int, int], dtype: torch.dtype
) -> Graph:
    """A directed graph with an edge for about every third pair; some nodes have none."""
    n = grid[0] * grid[1]
    edges = torch.rand(batch, n, n, generator=generator) < 0.3
    lonely = torch.rand(batch, n, 1, generator=generator) < 0.2
    return Graph.from_dense(edges & ~lonely & ~torch.eye(n, dtype=torch.bool), grid, dtype=dtype)


def head_rows(
    generator: torch.Generator, shape: tuple[int, int, int, int], flavour: str, dtype: torch.dtype
) -> Float[Tensor, "b h N d"]:
    """The same for the heads of a block, ``(b, h, N, d)``."""
    b, heads, n, width = shape
    if flavour == "axes":  # the same in every head, so that the mean over heads has no rounding
        one = rows(generator, (b, n, width), flavour, dtype)[:, None]
        return one.expand(b, heads, n, width).contiguous()
    return rows(generator, (b * heads, n, width), flavour, dtype).view(shape)


def positions(
    generator: torch.Generator, b: int, n: int, grid: tuple[int, int], order: str, fused: int
) -> Int[Tensor, "b n"]:
    """Positions on the grid, different in each image, the last few −1."""
    places = torch.rand(b, grid[0] * grid[1], generator=generator).argsort(dim=1)[:, :n]
    if order == "ascending":
        places = places.sort(dim=1).values
    if fused:
        places[:, n - fused :] = -1
    return places


def sizes_of(
    generator: torch.Generator, shape: tuple[int, int], kind: str, dtype: torch.dtype
) -> Float[Tensor, "b N"] | None:
    """Token sizes of one kind; ``"dead"`` has zeros among them."""
    if kind == "none":
        return None
    size = torch.ones(shape, dtype=dtype)
    if kind in ("counts", "dead"):
        low = int(kind == "counts")
        size = torch.randint(low, 5, shape, generator=generator).to(dtype)
        # The first token lives, or there would be no key to attend to.
        size[:, 0] = size[:, 0].clamp_min(1)
    elif kind == "fractions":
        size = torch.rand(shape, generator=generator, dtype=torch.float64).add(0.1).to(dtype)
    return size


def graph_of(
    generator: torch.Generator, b: int, grid: tuple[int, int], kind: str, dtype: torch.dtype
) -> Graph | None:
    """A graph of one kind, or None."""
    if kind == "none":
        return None
    if kind == "spatial":
        return Spatial()(torch.empty(1, grid[0] * grid[1], 1, dtype=dtype), grid)
    return random_graph(generator, b, grid, at_least_fp32(dtype))
