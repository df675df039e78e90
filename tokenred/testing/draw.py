"""Hypothesis strategies for the inputs of parts: grids, features, graphs, tokens, selections."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import QKV
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.graphs import Graph, Spatial
from tokenred.strategies.schedule import ScheduleContext
from tokenred.testing.sample import DEPTH, Sample

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
# Ordinary numbers come first, because hypothesis shrinks towards the first.
FLAVOURS = ("normal", "duplicates", "zeros", "same", "axes", "large")
SIZES = ("none", "ones", "counts", "fractions", "dead")

_seeds = st.integers(0, 2**16)


def grids(max_side: int = 5) -> st.SearchStrategy[tuple[int, int]]:
    """Grids ``(gh, gw)`` of any shape, including single rows and columns."""
    side, one = st.integers(1, max_side), st.just(1)
    line = st.integers(1, max_side * max_side)
    return st.tuples(side, side) | st.tuples(one, line) | st.tuples(line, one)


@st.composite
def samples(
    draw: st.DrawFn,
    *,
    needs_cls: bool = False,
    needs_size: bool = False,
    needs_graph: bool = False,
    min_batch: int = 1,
    dtypes: Sequence[torch.dtype] = DTYPES,
    flavours: Sequence[str] = FLAVOURS,
    sizes: Sequence[str] = SIZES,
    head_dim: tuple[int, int] = (1, 4),
    sparse: bool = True,
    whole: bool = False,
) -> Sample:
    """Tokens in some block: any grid, prefix, batch, type, size and index.

    Args:
        needs_cls, needs_size, needs_graph: always draw a class token, sizes, a graph.
        min_batch: smallest number of images, at most 3.
        dtypes, flavours: types and kinds of numbers to draw from.
        sizes: kinds of token sizes to draw from.
        head_dim: smallest and largest width of a head.
        sparse: sometimes draw θ below 1.
        whole: draw all tokens of the grid, in order, as before the first block.
    """
    b, heads = draw(st.integers(min_batch, 3)), draw(st.integers(1, 3))
    width = draw(st.integers(*head_dim))
    p = draw(st.integers(int(needs_cls), 5))
    cls_index = draw(st.integers(0, p - 1)) if needs_cls else None
    if p and not needs_cls:
        cls_index = draw(st.none() | st.integers(0, p - 1))
    grid = draw(grids())
    n = grid[0] * grid[1] if whole else draw(st.integers(1, min(12, grid[0] * grid[1])))
    dtype, flavour = draw(st.sampled_from(dtypes)), draw(st.sampled_from(flavours))
    kind = draw(st.sampled_from([s for s in sizes if not needs_size or s != "none"]))
    order = draw(st.sampled_from(("ascending",) if whole else ("ascending", "shuffled")))
    fused = 0 if whole else draw(st.integers(0, min(2, n - 1)))
    graphs = ("spatial", "random") if needs_graph else ("none", "spatial", "random")
    graph = draw(st.sampled_from(graphs))
    layer, seed = draw(st.integers(0, DEPTH - 1)), draw(_seeds)
    proportional = kind != "none" and draw(st.booleans())
    theta = draw(st.sampled_from((1.0, 0.6, 0.1))) if sparse else 1.0

    generator = torch.Generator().manual_seed(seed)
    x = rows(generator, (b, p + n, heads * width), flavour, dtype)
    q, k, v = (_head_rows(generator, (b, heads, p + n, width), flavour, dtype) for _ in range(3))
    state = TokenState(
        x=x,
        index=_positions(generator, b, n, grid, order, fused),
        num_prefix=p,
        grid=grid,
        size=_sizes_of(generator, (b, p + n), kind, at_least_fp32(dtype)),
        graph=_graph_of(generator, b, grid, graph, dtype),
        cls_index=cls_index,
        layer=layer,
    )
    label = (
        f"Sample(b={b}, p={p}, n={n}, c={heads * width}, heads={heads}, grid={grid}, "
        f"cls_index={cls_index}, {dtype}, features={flavour!r}, sizes={kind!r}, index={order!r} "
        f"with {fused} of −1, graph={graph!r}, layer={layer}, "
        f"proportional={proportional}, theta={theta}, seed={seed})"
    )
    exact = flavour == "axes"
    return Sample(state, QKV(q, k, v, width**-0.5), label, proportional, theta, exact)


def smooth_samples(**options: bool) -> st.SearchStrategy[Sample]:
    """Tokens in float64 without ties or zeros, for promises that hold up to rounding.

    ``options`` are those of `samples`.
    """
    return samples(
        dtypes=(torch.float64,),
        flavours=("normal",),
        sizes=("none", "ones", "counts", "fractions"),
        head_dim=(3, 4),
        sparse=False,
        **options,
    )


@st.composite
def reductions(
    draw: st.DrawFn, drawn: st.SearchStrategy[Sample], *, partners: bool | None = None
) -> Sample:
    """Tokens with a selection: any P from 0 to n−1, with scores.

    Args:
        drawn: the tokens.
        partners: whether dropped tokens have partners; None for both.
    """
    sample = draw(drawn)
    b, n = sample.state.index.shape
    count, seed = draw(st.integers(0, n - 1)), draw(_seeds)
    ascending = draw(st.booleans())
    partnered = draw(st.booleans()) if partners is None else partners
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(b, n, generator=generator).argsort(dim=1)
    keep, drop = order[:, : n - count], order[:, n - count :]
    if ascending:
        keep, drop = keep.sort(dim=1).values, drop.sort(dim=1).values
    chosen = torch.randint(0, n - count, (b, count), generator=generator)
    score = torch.rand(b, n, generator=generator, dtype=torch.float64).to(sample.state.x.dtype)
    selection = Selection(keep, drop, keep.gather(1, chosen) if partnered else None, score)
    label = f"Selection(P={count}, ascending={ascending}, partners={partnered}, seed={seed})"
    return replace(sample, selection=selection, label=f"{sample.label}, {label}")


@st.composite
def contexts(draw: st.DrawFn) -> ScheduleContext:
    """What a schedule is resolved against: depth, tokens, a limit per block, and a cost."""
    side = st.integers(1, 20)
    grid = draw(st.none() | st.tuples(side, side))
    patches = grid[0] * grid[1] if grid else draw(st.integers(1, 400))
    depths = (*range(1, 25), *[12] * 12)  # 12 is what schedules for given blocks are written for
    halves, extra = draw(st.booleans()), draw(st.integers(0, 1))

    def gmacs(counts: Sequence[int]) -> float:
        return float(sum(patches - gone for gone in itertools.accumulate(counts)))

    return ScheduleContext(
        depth=draw(st.sampled_from(depths)),
        patches=patches,
        added=lambda layer: extra,
        limit=(lambda tokens: tokens // 2) if halves else (lambda tokens: tokens - 1),
        caps=draw(st.booleans()),
        gmacs=gmacs,
        grid=grid,
    )


def rows(
    generator: torch.Generator, shape: tuple[int, ...], flavour: str, dtype: torch.dtype
) -> Float[Tensor, "b n c"]:
    """Vectors of one flavour, with shape ``(b, n, c)``.

    Args:
        flavour: ``"normal"``; ``"duplicates"``, with few distinct vectors; ``"zeros"``, with some
            zero vectors; ``"same"``, all equal; ``"axes"``, unit vectors along the axes, whose
            cosines have no rounding; ``"large"``, long vectors.
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
        x = F.one_hot(torch.randint(0, c, (b, n), generator=generator), c)
    elif flavour == "large":
        x = x * 30
    return x.to(dtype).contiguous()


def _head_rows(
    generator: torch.Generator, shape: tuple[int, int, int, int], flavour: str, dtype: torch.dtype
) -> Float[Tensor, "b h N d"]:
    b, heads, n, width = shape
    if flavour == "axes":  # the same in every head, so that the mean over heads has no rounding
        one = rows(generator, (b, n, width), flavour, dtype)[:, None]
        return one.expand(b, heads, n, width).contiguous()
    return rows(generator, (b * heads, n, width), flavour, dtype).view(shape)


def _positions(
    generator: torch.Generator, b: int, n: int, grid: tuple[int, int], order: str, fused: int
) -> Int[Tensor, "b n"]:
    """Positions on the grid, different in each image; the last few are −1."""
    places = torch.rand(b, grid[0] * grid[1], generator=generator).argsort(dim=1)[:, :n]
    if order == "ascending":
        places = places.sort(dim=1).values
    places[:, n - fused :] = -1
    return places


def _sizes_of(
    generator: torch.Generator, shape: tuple[int, int], kind: str, dtype: torch.dtype
) -> Float[Tensor, "b N"] | None:
    """Token sizes of one kind; ``"dead"`` includes zeros."""
    if kind == "none":
        return None
    size = torch.ones(shape, dtype=dtype)
    if kind in ("counts", "dead"):
        low = int(kind == "counts")
        size = torch.randint(low, 5, shape, generator=generator).to(dtype)
        # The first token is alive, so that there is a key to attend to.
        size[:, 0] = size[:, 0].clamp_min(1)
    elif kind == "fractions":
        size = torch.rand(shape, generator=generator, dtype=torch.float64).add(0.1).to(dtype)
    return size


def _graph_of(
    generator: torch.Generator, b: int, grid: tuple[int, int], kind: str, dtype: torch.dtype
) -> Graph | None:
    """No graph, the spatial one, or a directed one in which some nodes have no edges."""
    n = grid[0] * grid[1]
    if kind == "none":
        return None
    if kind == "spatial":
        return Spatial()(torch.empty(1, n, 1, dtype=dtype), grid)
    edges = torch.rand(b, n, n, generator=generator) < 0.3
    lonely = torch.rand(b, n, 1, generator=generator) < 0.2
    edges = edges & ~lonely & ~torch.eye(n, dtype=torch.bool)
    return Graph.from_dense(edges, grid, dtype=at_least_fp32(dtype))
