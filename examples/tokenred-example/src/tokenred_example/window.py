"""A graph of square windows."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

import tokenred as tr

__all__ = ["Window"]


@tr.register_graph("window")
class Window(tr.GraphBuilder):
    """All tokens up to ``radius`` rows and columns away.

    Args:
        radius: 1 means the eight neighbours.

    Shapes:
        returns: one undirected graph for all images.
    """

    traits: ClassVar[tr.Traits] = tr.Traits(equivariant=False, needs_grid=True)

    radius: int = 1

    def __post_init__(self) -> None:
        if self.radius < 1:
            raise tr.errors.ConfigError(f"Window: radius must be at least 1, got {self.radius}.")

    def __call__(self, x0: Float[Tensor, "b N0 c"], grid: tuple[int, int]) -> tr.Graph:
        node = torch.arange(grid[0] * grid[1], device=x0.device)
        place = torch.stack((node // grid[1], node % grid[1]), dim=-1)
        away = (place[:, None] - place[None]).abs().amax(dim=-1)
        near = (away > 0) & (away <= self.radius)
        return tr.Graph.from_dense(near[None], grid, directed=False)
