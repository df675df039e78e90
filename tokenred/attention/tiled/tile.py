"""One tile of the attention map: its buffers and statistics."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tokenred.attention.spec import QKV, AttentionSpec, Scratch
from tokenred.attention.stats import AttentionStat, stats_of_entries, wanted_entries
from tokenred.core.state import TokenState
from tokenred.core.tensors import multiply, rounds

_LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Tile:
    """The images, heads and query rows of a tile."""

    images: slice
    heads: slice
    rows: slice


_NO_TILE = Tile(slice(0), slice(0), slice(0))


class Workspace:
    """The buffers of one tile, reused for every tile of a block and for the next block."""

    def __init__(
        self, qkv: QKV, bias: Float[Tensor, "b N"] | None, maps: int, rows: int, scratch: Scratch
    ) -> None:
        n, d = qkv.q.shape[2:]
        self.qkv, self.width = qkv, d
        if bias is not None and rounds():
            bias = bias.clamp(min=-1e30)  # −∞ cannot be split
        self.bias = None if bias is None else bias[:, None]
        self.pairs = None if qkv.bias is None else qkv.bias.expand(len(qkv.q), -1, -1, -1)
        # With a bias on the keys, k has a column of biases and q one of log2 e, the unit of the
        # logits here: the product adds it.
        width = d if bias is None else d + 1
        self._scratch = scratch
        self._q = self._buffer("q", maps, rows, width)
        if bias is not None:
            self._q[..., d].fill_(_LOG2_E)
        self._k = self._buffer("k", maps, n, width)
        self._v = self._buffer("v", maps, n, qkv.v.shape[3])
        self._map = self._buffer("map", maps, rows, n)
        self._out = self._buffer("out", maps, rows, qkv.v.shape[3])
        self._shape, self._held, self._tile = (0, 0, 0), (-1, -1), _NO_TILE

    def load(self, tile: Tile) -> None:
        """Take the queries, keys and values of a tile."""
        q = self.qkv.q[tile.images, tile.heads, tile.rows]
        self._take((q.shape[0], q.shape[1], q.shape[2]))
        self._tile = tile
        # Powers of two are faster than powers of e.
        torch.mul(q, self.qkv.scale * _LOG2_E, out=self._queries)
        if self._held == (tile.images.start, tile.heads.start):
            return  # other rows of the same maps
        self._keys.copy_(self.qkv.k[tile.images, tile.heads])
        if self.bias is not None:
            self._biases.copy_(self.bias[tile.images])
        self._values.copy_(self.qkv.v[tile.images, tile.heads])
        self._held = (tile.images.start, tile.heads.start)

    def exponentials(self) -> tuple[Float[Tensor, "b h rows N"], Float[Tensor, "b h rows 1"]]:
        """The map before its rows are scaled, and the factors; scaling the products is cheaper."""
        logits = self._logits()
        logits -= logits.amax(dim=-1, keepdim=True)
        torch.exp2(logits, out=logits)
        return logits, logits.sum(dim=-1, keepdim=True).reciprocal_()

    def softmax(self) -> Float[Tensor, "b h rows N"]:
        """The map."""
        attention, share = self.exponentials()
        return attention.mul_(share)

    def spare(self) -> Float[Tensor, "m entries"]:
        """A second buffer of the map's size."""
        maps, rows, n = self.map.shape
        return self._buffer("spare", maps, rows * n)

    def attend(
        self,
        attention: Float[Tensor, "b h rows N"],
        share: Float[Tensor, "b h rows 1"] | None,
        out: Float[Tensor, "b h rows d"],
    ) -> None:
        """The product of a map with the values, its rows multiplied by ``share``, into ``out``."""
        torch.bmm(attention.flatten(0, 1), self.v, out=self.out)
        if share is None:
            out.copy_(self._product)
        else:
            torch.mul(self._product, share, out=out)

    def _buffer(self, name: str, *shape: int) -> Tensor:
        return self._scratch.take(name, shape, self.qkv.q)

    def _logits(self) -> Float[Tensor, "b h rows N"]:
        multiply(self.q, self._k_columns, self.map)
        logits: Tensor = self._logits_view
        if self.pairs is not None:
            at = self._tile
            logits.add_(self.pairs[at.images, at.heads, at.rows], alpha=_LOG2_E)
        return logits

    def _take(self, shape: tuple[int, int, int]) -> None:
        """The views of the buffers for a tile, created once for all tiles of a shape."""
        if shape == self._shape:
            return
        maps, rows, d = shape[0] * shape[1], shape[2], self.width
        # In the layout of the products: images × heads first.
        self.q, self.map, self.out = (t[:maps, :rows] for t in (self._q, self._map, self._out))
        k, self.v = self._k[:maps], self._v[:maps]
        self._k_columns = k.mT
        # In the model's layout.
        queries, keys, self._values, self._logits_view, self._product = (
            t.unflatten(0, shape[:2]) for t in (self.q, k, self.v, self.map, self.out)
        )
        self._queries, self._keys = queries[..., :d], keys[..., :d]
        self._biases = keys[..., -1]
        self._shape = shape


class TileStatistics:
    """The requested statistics, gathered per head from the tiles."""

    def __init__(self, qkv: QKV, spec: AttentionSpec, state: TokenState) -> None:
        b, h, n, _ = qkv.q.shape
        self.requires, self.state = spec.map_stats, state
        wanted = wanted_entries(self.requires, state)
        self.row = {row: qkv.q.new_empty(b, h, n) for row in wanted.rows}
        self.diagonal = qkv.q.new_empty(b, h, n) if wanted.diagonal else None
        self.column_sum = qkv.q.new_zeros(b, h, n) if wanted.column_sum else None
        kept, maps = (any(stat.kind == kind for stat in self.requires) for kind in ("kept", "maps"))
        self.kept = qkv.q.new_ones(b, h) if kept else None
        self.maps = qkv.q.new_empty(b, h, n, n) if maps else None

    def add(
        self,
        attention: Float[Tensor, "b h rows N"],
        share: Float[Tensor, "b h rows 1"] | None,
        tile: Tile,
    ) -> None:
        """Add the statistics of a tile, whose rows are multiplied by ``share`` if given."""
        at = (tile.images, tile.heads)
        if self.maps is not None:
            here = self.maps[(*at, tile.rows)]
            here.copy_(attention) if share is None else torch.mul(attention, share, out=here)
        if self.diagonal is not None:
            own = attention[..., tile.rows].diagonal(dim1=-2, dim2=-1)
            here = self.diagonal[(*at, tile.rows)]
            if share is None:
                here.copy_(own)
            else:
                torch.mul(own, share[..., 0], out=here)
        if self.column_sum is not None:
            here = self.column_sum[at]
            if share is None:
                here.add_(attention.sum(dim=-2))
            else:
                # A tile is of whole images or of one image: its part is contiguous.
                rows = here.view(-1, 1, here.shape[-1])
                rows.baddbmm_(share.flatten(0, 1).mT, attention.flatten(0, 1))
        for row, kept in self.row.items():
            if tile.rows.start <= row < tile.rows.stop:
                place = row - tile.rows.start
                one = attention[:, :, place]
                kept[at] = one if share is None else one * share[:, :, place]

    def add_kept(self, shares: NDArray[np.floating], tile: Tile) -> None:
        """Add the shares of entries that a tile kept, per image and head."""
        if self.kept is not None:  # one call per tile, which most forwards can skip
            here = self.kept[tile.images, tile.heads]
            here.copy_(torch.from_numpy(shares).view_as(here))

    def result(self) -> dict[AttentionStat, Tensor]:
        """The statistics, aggregated over heads."""
        p = self.state.num_prefix
        held = {} if self.maps is None else {AttentionStat.maps(): self.maps}
        return held | stats_of_entries(
            self.requires,
            self.state,
            row=lambda row: self.row[row][..., p:],
            diagonal=lambda: _known(self.diagonal)[..., p:],
            column_sum=lambda: _known(self.column_sum)[..., p:],
            kept=lambda: _known(self.kept),
        )


def _known(values: Tensor | None) -> Tensor:
    assert values is not None
    return values
