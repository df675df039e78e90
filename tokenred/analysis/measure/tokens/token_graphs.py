"""Statistics of the graphs that a builder makes of images, or of one graph at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tokenred.analysis.level import check_level
from tokenred.analysis.measure.context import base_of
from tokenred.analysis.measure.image_stream import image_stream
from tokenred.analysis.measure.inputs import Data, open_for
from tokenred.analysis.measure.intervals.bootstrap import StreamingMeans
from tokenred.analysis.measure.tokens.graph_measures import (
    GRAPH_STATISTICS,
    adjacency,
    describe,
    in_degree,
)
from tokenred.analysis.measure.tokens.token_statistics import unreached_share
from tokenred.analysis.result import FramedResult, plain_table
from tokenred.core.errors import ConfigError, InputError
from tokenred.data.classes import ClassMap
from tokenred.graphs import Graph, GraphBuilder
from tokenred.graphs.base import graph_builders
from tokenred.reduced.api import dense, gmacs
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import StrategyLike, parse_spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GraphStatistics", "graph_statistics"]

_UNREACHED = "unreached"


@dataclass(frozen=True, eq=False, repr=False)
class GraphStatistics(FramedResult):
    """What token graphs look like; ``print`` shows it.

    Attributes:
        frame: one row a statistic: ``mean`` over the images and its bootstrap interval. The names
            are those of `tokenred.analysis.measure.tokens.graph_measures.GRAPH_STATISTICS`, and
            ``unreached`` with a ``layer`` (missing for the others): the share of the tokens
            dropped in that block that no kept token has for a neighbour.
        in_degree: ``(gh, gw)`` how many tokens chose each position, mean over the images.
    """

    in_degree: NDArray[np.float64]

    def table(self) -> Table:
        title = f"Token graphs: {self.frame['builder'].iloc[0]}"
        sure = self.frame["low"].notna().any()
        names = ["statistic", "mean", f"{self.level:.0%} interval"] if sure else ["statistic", ""]
        table = plain_table(f"{title}, {self.about}" if self.about else title, names)
        for row in self.frame.to_dict("records"):
            meaning = GRAPH_STATISTICS.get(str(row["statistic"])) or (
                f"block {row['layer']}: dropped tokens without a kept neighbour, share"
            )
            known = np.isfinite(row["mean"])
            interval = f"{row['low']:.3f} to {row['high']:.3f}" if known else ""
            cells = [meaning, f"{row['mean']:.3f}" if known else "", interval]
            table.add_row(*cells[: len(names)])
        return table

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.in_degree_map`."""
        from tokenred.analysis.plots.graph_figures import in_degree_map

        return in_degree_map(self, **options)


@overload
def graph_statistics(source: Graph, *, seed: int = 0, level: float = 0.95) -> GraphStatistics: ...


@overload
def graph_statistics(
    source: nn.Module,
    data: Data,
    builder: GraphBuilder | str = "mixed",
    *,
    strategy: StrategyLike | None = "gtp",
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str | torch.device | None = None,
    seed: int = 0,
    level: float = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    progress: bool = True,
) -> GraphStatistics: ...


def graph_statistics(
    source: Graph | nn.Module,
    data: Data | None = None,
    builder: GraphBuilder | str = "mixed",
    *,
    strategy: StrategyLike | None = "gtp",
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str | torch.device | None = None,
    seed: int = 0,
    level: float = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    progress: bool = True,
) -> GraphStatistics:
    """Degrees, reciprocity, clustering, components, spectral gap and lengths of token graphs.

    Args:
        source: a graph, each image of its batch counted for itself; or a model whose embedding the
            builder sees.
        data: with a model, see `tokenred.analysis.evaluate`.
        builder: a graph builder or its name.
        strategy: with a model, what drops tokens, for ``unreached``; its graph is replaced by the
            builder's. None to leave that out.
        limit, batch_size, workers, device, split, class_map, progress: as in `evaluate`.
        seed: of the choice of images and of the bootstrap.
        level: of the intervals.
        name: of the model, for titles.

    Raises:
        ConfigError: for a graph with data or a model without, a builder that makes no graph, or
            numbers out of range.
        InputError: for images of several sizes.
        TokenredError: as `parse_spec`, `tokenred.wrap` and the data raise them.
    """
    check_level(level)
    if isinstance(source, Graph):
        if data is not None:
            raise ConfigError("expected a graph, or a model and data; got a graph and data.")
        rows, degrees = _describe(source, source.batch)
        means = StreamingMeans(len(GRAPH_STATISTICS), seed=seed)
        means.add(rows)
        about = {"builder": "a graph", "model": "", "data": "", "seed": seed}
        keys: list[tuple[str, int | None]] = [(key, None) for key in GRAPH_STATISTICS]
        return _result(keys, means, degrees / source.batch, level, about, 0)
    if data is None:
        raise ConfigError("expected data for the model's graphs, got none; or pass a graph.")
    base = base_of(source)
    made = graph_builders.create(builder)
    reduced = _reduced(base, made, strategy)
    made.check(reduced.info)
    build: Any = made.built_for(reduced.info)
    if not isinstance(data, DataLoader):
        data = open_for(base, data, split=split, class_map=class_map)
    dropping = [x.layer for x in reduced.cost().layers if x.removed and strategy is not None]
    keys = [(key, None) for key in GRAPH_STATISTICS]
    keys += [(_UNREACHED, layer) for layer in dropping]
    means = StreamingMeans(len(keys), seed=seed)
    total: NDArray[np.float64] | None = None
    with image_stream(
        [reduced], data, batch_size=batch_size, workers=workers, limit=limit, device=device,
        amp=None, seed=seed, progress=progress, title="graphs",
    ) as stream:  # fmt: skip
        for images in stream:
            graph = _graph_of(reduced, build, images)
            rows, degrees = _describe(graph, len(images))
            if dropping:
                shares = unreached_share(graph, reduced.run_with_trace(images)[1])
                rows = np.hstack((rows, np.stack([x.cpu().numpy() for x in shares], axis=1)))
            means.add(rows)
            if total is not None and total.shape != degrees.shape:
                raise InputError(
                    f"expected images of one size, got grids of {total.shape} and {degrees.shape} "
                    "patches; resize them."
                )
            total = degrees if total is None else total + degrees
    assert total is not None  # the stream refuses to end without an image
    about = {
        "builder": repr(made),
        "model": name or type(base).__name__,
        "data": getattr(data, "name", ""),
        "seed": seed,
    }
    return _result(keys, means, total / stream.count, level, about, stream.skipped)


def _reduced(base: nn.Module, builder: GraphBuilder, strategy: StrategyLike | None) -> ReducedViT:
    if strategy is None:
        return dense(base)
    return wrap(base, parse_spec(strategy).resolve(gmacs(base)).replace(graph=builder))


def _graph_of(reduced: ReducedViT, build: Callable[..., Graph | None], images: Tensor) -> Graph:
    embedded = reduced.backbone.embed(images)
    graph = build(embedded.x0, embedded.grid)
    if graph is None:
        raise ConfigError(f"expected a builder that makes a graph, got {build!r}.")
    return graph


def _describe(graph: Graph, images: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(images, statistics)``, and the in-degrees summed over the images, on the grid."""
    matrices = [adjacency(graph, i) for i in range(graph.batch)]
    rows = np.array([list(describe(matrix, graph.grid).values()) for matrix in matrices])
    degrees = np.sum([in_degree(matrix) for matrix in matrices], axis=0).reshape(graph.grid)
    # One graph may serve all images.
    return (rows, degrees) if graph.batch == images else (rows.repeat(images, 0), degrees * images)


def _result(
    keys: Sequence[tuple[str, int | None]],
    means: StreamingMeans,
    degrees: NDArray[np.float64],
    level: float,
    about: dict[str, Any],
    skipped: int,
) -> GraphStatistics:
    import pandas as pd

    low, high = means.intervals(level)
    frame = pd.DataFrame(
        {
            "builder": about["builder"],
            "statistic": [statistic for statistic, _ in keys],
            "layer": pd.array([layer for _, layer in keys], dtype="Int64"),
            "mean": means.means,
            "low": low,
            "high": high,
            "images": means.counts,
            "model": about["model"],
            "data": about["data"],
            "seed": about["seed"],
        }
    )
    images = int(means.counts.max())
    notes = ["1 image." if images == 1 else f"{images} images; bootstrap intervals over them."]
    notes += [f"{skipped} unreadable images left out."] if skipped else []
    return GraphStatistics(frame, level, tuple(notes), degrees)
