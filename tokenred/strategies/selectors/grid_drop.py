"""Evenly spaced tokens on the grid."""

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.selectors.top_score import keep_best


@selectors.register("GridDrop")
class GridDrop(Selector):
    """Drop tokens evenly over the grid, at the same positions in every image.

    Positions are dropped in the order of an ordered-dither matrix (Bayer, ICC 1973), cropped to the
    grid: half of the tokens form a chequerboard, a quarter every second row and column, and other
    numbers are spread just as evenly. The order is nested, so tokens can be dropped in several
    steps. Tokens that represent no single patch are dropped last.

    Shapes:
        returns: ``keep (b, n−P)`` ascending; ``drop (b, P)``, the last to go first; ``score`` is
            the order in which positions are dropped, from 0 for the last downwards.
    """

    traits = Traits(equivariant=True, needs_grid=True)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        return keep_best(-dither_order(state.index, state.grid).float(), count)


def dither_order(index: Int[Tensor, "b n"], grid: tuple[int, int]) -> Int[Tensor, "b n"]:
    """The rank in which positions are kept, 0 being the first; −1 for a position of −1.

    Args:
        index: positions on the grid, row by row.
        grid: rows and columns.
    """
    row, column = index // grid[1], index % grid[1]
    order = torch.zeros_like(index)
    # The lowest bits of row and column come first: (0, 0), (1, 1), (0, 1), (1, 0).
    for bit in range(max(1, (max(grid) - 1).bit_length())):
        r, c = row >> bit & 1, column >> bit & 1
        order = 4 * order + 2 * (r ^ c) + r
    return order.masked_fill(index < 0, -1)
