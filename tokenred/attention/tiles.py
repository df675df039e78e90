"""Attention with statistics on the CPU, a tile at a time: the map never leaves the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.need import Need
from tokenred.attention.request import Engine, Heads, Request
from tokenred.attention.stats import AttentionStats, over_heads, row_index
from tokenred.attention.threshold import sparsify_
from tokenred.core.state import TokenState

__all__ = ["TiledEngine"]

# Entries of the map in one tile. Smaller tiles cost calls, larger ones fall out of the cache.
_TILE = 1 << 19
_KINDS = frozenset({"diagonal", "received", "row", "kept"})


@dataclass(frozen=True)
class _Tile:
    images: slice
    heads: slice
    rows: slice


class TiledEngine(Engine):
    """Tiles of (images, heads, query rows): logits, softmax, statistics and product in cache.

    Holds one tile of the map at a time; with θ < 1 at least one image and head of it. For
    inference on the CPU: gradients, dropout, edits of the logits and the whole map are left to the
    plain engine, and so is tracing, because a loop over tiles would freeze the batch size.
    """

    def supports(self, heads: Heads, request: Request) -> bool:
        grad = torch.is_grad_enabled() and (heads.q.requires_grad or heads.v.requires_grad)
        return (
            heads.q.device.type == "cpu"
            and heads.q.dtype in (torch.float32, torch.float64)
            and heads.dropout == 0
            and not request.edits
            and all(need.kind in _KINDS for need in request.map_needs)
            and not grad
            and not torch.compiler.is_compiling()
        )

    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        b, h, n, d = heads.v.shape
        # Laid out so that the block's transpose and flatten are views.
        out = heads.v.new_empty(b, n, h, d).transpose(1, 2)
        collect = _Statistics(heads, request, state)
        images, group, rows = _tile_shape(b, h, n, whole=request.theta < 1)
        work = _Workspace(heads, images * group, rows, bias=request.key_bias is not None)
        for tile in _tiles((b, h, n), (images, group, rows)):
            attention = work.attention(heads, request.key_bias, tile)
            if request.theta < 1:
                fast = request.threshold == "fast"
                kept = sparsify_(attention, request.theta, request.reference, fast=fast)
                collect.kept[tile.images, tile.heads] = kept
            collect.add(attention, tile)
            out[tile.images, tile.heads, tile.rows] = attention @ work.values(heads, tile)
        found = collect.result() | heads.stats(request.needs, state)
        return out, AttentionStats(found)


class _Workspace:
    """Buffers for one tile, used again for each: fresh ones would cost a page fault a page."""

    def __init__(self, heads: Heads, maps: int, rows: int, *, bias: bool) -> None:
        n, d = heads.q.shape[2:]
        # With a bias on the keys, q has a column of ones and k one of biases: the product adds it.
        width = d + 1 if bias else d
        self.q = heads.q.new_ones(maps, rows, width)
        self.k = heads.q.new_empty(maps, n, width)
        self.map = heads.q.new_empty(maps, rows, n)
        self.width, self.held = d, (-1, -1)

    def attention(
        self, heads: Heads, bias: Float[Tensor, "b N"] | None, tile: _Tile
    ) -> Float[Tensor, "b h rows N"]:
        """The softmax map of a tile."""
        q, d = heads.q[tile.images, tile.heads, tile.rows], self.width
        b, h, rows, _ = q.shape
        maps, n = b * h, heads.k.shape[2]
        torch.mul(q, heads.scale, out=self.q[:maps, :rows, :d].view(b, h, rows, d))
        if self.held != (tile.images.start, tile.heads.start):  # the same for all rows of a map
            keys = self.k[:maps].view(b, h, n, -1)
            keys[..., :d] = heads.k[tile.images, tile.heads]
            if bias is not None:
                keys[..., d] = bias[tile.images, None]
            self.held = (tile.images.start, tile.heads.start)
        logits = self.map[:maps, :rows]
        torch.bmm(self.q[:maps, :rows], self.k[:maps].transpose(1, 2), out=logits)
        return torch.softmax(logits, dim=-1, out=logits).view(b, h, rows, n)

    def values(self, heads: Heads, tile: _Tile) -> Float[Tensor, "b h N d"]:
        """The values of a tile."""
        return heads.v[tile.images, tile.heads]


class _Statistics:
    """The statistics asked for, gathered head by head from the tiles."""

    def __init__(self, heads: Heads, request: Request, state: TokenState) -> None:
        b, h, n, _ = heads.q.shape
        self.needs, self.prefix = request.map_needs, state.num_prefix
        self.rows = {
            need: row_index(need, state.num_prefix, state.cls_index)
            for need in self.needs
            if need.kind == "row"
        }
        self.row = {row: heads.q.new_empty(b, h, n) for row in self.rows.values()}
        kinds = {need.kind for need in self.needs}
        own = "diagonal" in kinds or any(need.exclude_self for need in self.needs)
        self.diagonal = heads.q.new_empty(b, h, n) if own else None
        self.received = heads.q.new_zeros(b, h, n) if "received" in kinds else None
        self.kept = heads.q.new_ones(b, h)

    def add(self, attention: Float[Tensor, "b h rows N"], tile: _Tile) -> None:
        """Take what a tile tells."""
        at = (tile.images, tile.heads)
        if self.diagonal is not None:
            own = attention[..., tile.rows].diagonal(dim1=-2, dim2=-1)
            self.diagonal[(*at, tile.rows)] = own
        if self.received is not None:
            self.received[at] += attention.sum(dim=-2)
        for row, kept in self.row.items():
            if tile.rows.start <= row < tile.rows.stop:
                kept[at] = attention[:, :, row - tile.rows.start]

    def result(self) -> dict[Need, Tensor]:
        """The statistics, aggregated over heads."""
        found = {}
        for need in self.needs:
            if need.kind == "kept":
                found[need] = self.kept
                continue
            if need.kind == "diagonal":
                value = self.diagonal
            elif need.kind == "received":
                value = self.received
                if need.exclude_self and value is not None and self.diagonal is not None:
                    value = value - self.diagonal
            else:
                value = self.row[self.rows[need]]
            assert value is not None
            found[need] = over_heads(value[..., self.prefix :], need.aggregate)
        return found


def _tile_shape(b: int, h: int, n: int, *, whole: bool) -> tuple[int, int, int]:
    """Images, heads and query rows of a tile: whole images first, then whole maps, then rows."""
    maps = max(1, _TILE // (n * n))
    if maps >= h:
        return min(b, maps // h), h, n
    group = max(g for g in range(1, h + 1) if h % g == 0 and g <= maps)
    rows = n if whole else min(n, max(1, _TILE // n))
    return 1, group, rows


def _tiles(size: tuple[int, int, int], step: tuple[int, int, int]) -> Iterator[_Tile]:
    for image in range(0, size[0], step[0]):
        for head in range(0, size[1], step[1]):
            for row in range(0, size[2], step[2]):
                yield _Tile(
                    slice(image, min(image + step[0], size[0])),
                    slice(head, min(head + step[1], size[1])),
                    slice(row, min(row + step[2], size[2])),
                )
