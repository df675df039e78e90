"""CubistMerge's matching."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.errors import PartError, ScheduleError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import gather_tokens, unit_vectors
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.fusers.maximum import merged_maximum
from tokenred.strategies.schedules.grid_shrink import GridShrink


@selectors.register("GridMatching")
class GridMatching(Selector):
    """Merge neighbours so that the tokens still form a rectangle (CubistMerge, arXiv 2509.21764).

    First every row loses some tokens, then every column of the result. In a line, each odd position
    chooses the more similar of its neighbours (cosine of the features), and the best choices merge
    into them. A neighbour that receives two tokens takes the larger entries of both.

    Args:
        schedule: how many rows and columns each block removes; must also be the strategy's
            schedule.
        exact: False follows the authors' code, where only one of two tokens that choose the same
            neighbour merges and the other is lost: of the ranks by cosine in the line, first the
                even, then the odd ones are written, and the last one stays.

    Shapes:
        returns: ``keep (b, n−P)``, row by row; ``drop (b, P)`` ascending; ``partner (b, P)``, −1
            for a token that is lost.
    """

    traits = Traits(equivariant=False, needs_grid=True)

    schedule: GridShrink = GridShrink()
    exact: bool = True

    def counts(self, state: TokenState) -> Iterable[int]:
        try:
            (height, width), (rows, columns) = self.schedule.at(
                state.layer, state.depth, state.grid
            )
        except ScheduleError:
            return {0}
        whole = height * width == state.num_tokens
        return {0, height * width - (height - rows) * (width - columns)} if whole else {0}

    def grid_after(self, layer: int, depth: int, grid: tuple[int, int]) -> tuple[int, int]:
        (height, width), (rows, columns) = self.schedule.at(layer, depth, grid)
        return height - rows, width - columns

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(2 * tokens * info.width)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        n = state.num_tokens
        if not count:
            places = torch.arange(n, device=state.x.device).expand(state.x.shape[0], n)
            return Selection(keep=places, drop=places[:, :0], partner=places[:, :0])
        (height, width), (rows, columns) = self.schedule.at(state.layer, state.depth, state.grid)
        if height * width != n or n - (height - rows) * (width - columns) != count:
            raise PartError(
                f"GridMatching expects {height}×{width} tokens in block {state.layer} and removes "
                f"{rows} rows and {columns} columns, but there are {n} tokens and the schedule "
                f"removes {count}. Use its own schedule, {self.schedule!r}."
            )
        b = state.x.shape[0]
        x = state.image.detach()
        place = torch.arange(n, device=x.device).view(height, width).expand(b, -1, -1)
        x, place, joined = self._lines(x.view(b, height, width, x.shape[2]), place, columns)
        partner = torch.arange(n, device=x.device).expand(b, n)
        partner = partner.scatter(1, *joined)
        x, place = x.transpose(1, 2), place.transpose(1, 2)
        x, place, joined = self._lines(x, place, rows)
        later = torch.arange(n, device=x.device).expand(b, n).scatter(1, *joined)
        # A token that joined one that is lost later is also lost.
        partner = torch.where(partner < 0, -1, later.gather(1, partner.clamp_min(0)))
        keep = place.transpose(1, 2).flatten(1)
        chosen = torch.zeros_like(partner).scatter(1, keep, 1)
        drop = chosen.sort(dim=1, stable=True).indices[:, :count]
        return Selection(keep=keep, drop=drop, partner=partner.gather(1, drop))

    def _lines(
        self, x: Float[Tensor, "b l m c"], place: Tensor, count: int
    ) -> tuple[Float[Tensor, "b l k c"], Tensor, tuple[Tensor, Tensor]]:
        """Lines after the merges, and the removed positions with what they joined (or −1)."""
        b, lines, m = x.shape[:3]
        if not count:
            none = place.flatten(1)[:, :0]
            return x, place, (none, none)
        unit = unit_vectors(x.flatten(0, 1))
        cosine = (unit[:, 1:] * unit[:, :-1]).sum(dim=-1)  # of neighbours
        left, right = cosine[:, ::2], cosine[:, 1::2]
        if right.shape[1] < left.shape[1]:  # the last odd position has no right neighbour
            right = torch.cat((right, torch.full_like(left[:, :1], -torch.inf)), dim=1)
        best = torch.where(right > left, right, left)
        rank = (-best).sort(dim=1, stable=True).indices
        odd = torch.arange(1, m, 2, device=x.device)
        target = torch.where(right > left, odd + 1, odd - 1)
        source, target = odd[rank[:, :count]], target.gather(1, rank[:, :count])
        gone = torch.zeros_like(unit[..., 0], dtype=torch.long).scatter(1, source, 1)
        kept = gone.sort(dim=1, stable=True).indices[:, : m - count]
        slot = torch.zeros_like(gone).scatter(
            1, kept, torch.arange(m - count, device=x.device).expand_as(kept)
        )
        stays = torch.ones_like(source, dtype=torch.bool) if self.exact else _last(target)
        slot = torch.where(stays, slot.gather(1, target), -1)
        flat, place = x.flatten(0, 1), place.flatten(0, 1)
        merged = merged_maximum(gather_tokens(flat, kept), gather_tokens(flat, source), slot, True)
        to = torch.where(stays, place.gather(1, target), -1)
        joined = (place.gather(1, source).view(b, lines * count), to.view(b, lines * count))
        shape = (b, lines, m - count)
        return merged.view(*shape, x.shape[3]), place.gather(1, kept).view(shape), joined


def _last(target: Tensor) -> Tensor:
    """Of the sources of a target, in order of rank, the one that the program writes last."""
    rank = torch.arange(target.shape[1], device=target.device)
    written = rank % 2 * len(rank) + rank
    later = (target[:, :, None] == target[:, None, :]) & (written[:, None] < written)
    return ~later.any(dim=2)
