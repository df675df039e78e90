"""Attention with statistics on the CPU, one tile at a time: the map never leaves the cache."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.spec import QKV, Attended, AttentionSpec, Engine, Scratch, without_map
from tokenred.attention.stats import AttentionStat, AttentionStats, stats_of_map
from tokenred.attention.tiled.threshold import sparsified
from tokenred.attention.tiled.tile import Tile, TileStatistics, Workspace
from tokenred.core.capture import is_eager
from tokenred.core.state import TokenState
from tokenred.core.tensors import rounds

# Entries of the map in one tile, per thread: smaller tiles cost calls, larger ones exceed the
# cache. The map of one head may be larger, because a product with few rows is slow.
_TILE, _ONE_MAP = 1 << 19, 1 << 20
# Entries of a map up to which buffers outlive the block, because page faults would cost a few
# percent. For larger maps nothing is held during the MLP, where the forward's memory peaks.
_REUSED = 1 << 17


class TiledEngine(Engine):
    """Tiles of (images, heads, query rows): logits, softmax, statistics and product in cache.

    Holds one tile of the map at a time; with θ < 1 at least the map of one image and head. For
    inference on the CPU: the plain engine handles gradients, dropout, score mods, the whole map,
    and tracing, because a loop over tiles would fix the batch size.
    """

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        return (
            qkv.q.device.type == "cpu"
            and without_map(qkv, spec, (torch.float32, torch.float64), also="maps")
            and is_eager()
        )

    def __call__(self, qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
        b, h, n, d = qkv.v.shape
        if b == 1 and h * n * n <= _TILE and not rounds():
            return _whole(qkv, spec, state)
        # With a layout in which the block's transpose and flatten are views.
        out = qkv.v.new_empty(b, n, h, d).transpose(1, 2)
        collect = TileStatistics(qkv, spec, state)
        self._run(qkv, spec, collect, out)
        # The buffers are freed here, so the statistics need their own memory.
        found = collect.result() | qkv.stats(spec.requires, state)
        return out, AttentionStats(found)

    @staticmethod
    def _run(
        qkv: QKV, spec: AttentionSpec, collect: TileStatistics, out: Float[Tensor, "b h N d"]
    ) -> None:
        b, h, n, _ = qkv.v.shape
        images, group, rows = _tile_shape(b, h, n, whole=spec.theta < 1)
        scratch = (spec.scratch if n * n <= _REUSED else None) or Scratch()
        work = Workspace(qkv, spec.key_bias, images * group, rows, scratch)
        for tile in _tiles((b, h, n), (images, group, rows)):
            work.load(tile)
            if spec.theta < 1:
                share = None
                attention, kept = sparsified(
                    work.softmax(), spec.theta, spec.reference,
                    fast=spec.threshold == "fast", out=work.spare(),
                )  # fmt: skip
                collect.add_kept(kept, tile)
            elif rounds():  # column sums as products would be rounded
                attention, share = work.softmax(), None
            else:
                attention, share = work.exponentials()
            collect.add(attention, share, tile)
            work.attend(attention, share, out[tile.images, tile.heads, tile.rows])


def _whole(qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
    """One image whose maps are one tile: no buffers, and as few calls as possible."""
    q, k, v, n = qkv.q[0], qkv.k[0], qkv.v[0], qkv.q.shape[2]
    pairs, bias = qkv.bias, spec.key_bias
    bias = None if bias is None else bias.to(q.dtype)[:, None]
    if pairs is not None:
        bias = pairs[0] if bias is None else pairs[0] + bias
    start = q.new_empty(()) if bias is None else bias
    logits = torch.baddbmm(start, q, k.mT, beta=0 if bias is None else 1, alpha=qkv.scale)
    attention = logits.softmax(dim=-1)[None]
    kept = None
    if spec.theta < 1:
        attention, kept = sparsified(
            attention, spec.theta, spec.reference,
            fast=spec.threshold == "fast", out=logits.view(-1, n * n),
        )  # fmt: skip
    found = stats_of_map(attention, spec.map_stats, state)
    if kept is not None and (stat := AttentionStat.kept()) in found:
        found[stat] = torch.from_numpy(kept).to(q.dtype)[None]
    # With a layout in which the block's transpose and flatten are views.
    out = v.new_empty(n, *v.shape[::2]).transpose(0, 1)
    torch.bmm(attention[0], v, out=out)
    return out[None], AttentionStats(found | qkv.stats(spec.requires, state))


def _tile_shape(b: int, h: int, n: int, *, whole: bool) -> tuple[int, int, int]:
    """Images, heads and query rows of a tile: whole images first, then whole maps, then rows.

    Each thread has its own map, or all share one.
    """
    threads = torch.get_num_threads()
    maps = max(threads, threads * _TILE // (n * n))
    if maps >= h:
        return max(1, min(b, maps // h)), h, n
    group = max(g for g in range(1, h + 1) if h % g == 0 and g <= maps)
    if whole or n * n <= _ONE_MAP:
        return 1, group, n
    pieces = -(-n * n // _TILE)
    return 1, group, -(-n // pieces)


def _tiles(size: tuple[int, int, int], step: tuple[int, int, int]) -> Iterator[Tile]:
    for image in range(0, size[0], step[0]):
        for head in range(0, size[1], step[1]):
            for row in range(0, size[2], step[2]):
                yield Tile(
                    slice(image, min(image + step[0], size[0])),
                    slice(head, min(head + step[1], size[1])),
                    slice(row, min(row + step[2], size[2])),
                )
