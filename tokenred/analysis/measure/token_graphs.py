"""Statistics of the graphs that a builder makes from images, or of one given graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table
from torch import Tensor, nn

from tokenred.analysis.measure.graph_measures import (
    GRAPH_STATISTICS,
    adjacency,
    describe,
    in_degree,
)
from tokenred.analysis.measure.inputs import Data, shown_pixels
from tokenred.analysis.measure.intervals import StreamingMeans
from tokenred.analysis.measure.machine import base_of, running, weight_type
from tokenred.analysis.measure.per_image import means_over_images
from tokenred.analysis.result import FramedResult, count, plain_table
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.values import Count, PartOf, Size, checked
from tokenred.data import eval_transform
from tokenred.data.classes import ClassMap
from tokenred.graphs import Graph, GraphBuilder
from tokenred.graphs.base import graph_builders
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.trace import Trace
from tokenred.reduced.wrap import dense, wrap
from tokenred.strategies.specs import StrategyLike, parse_spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ImageGraph:
    """A token graph and its photograph.

    Attributes:
        graph: its graph, of batch size 1.
        image: ``(1, 3, H, W)`` as the model takes it.
        pixels: ``(H, W, 3)`` the same before normalisation, 0 to 1.
    """

    graph: Graph
    image: Tensor
    pixels: NDArray[np.float32]


def image_graph(
    model: nn.Module, image: Image.Image, builder: GraphBuilder | str = "mixed"
) -> ImageGraph:
    """The token graph of a photograph, with the model's own preprocessing and embedding.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        image: any size; it is resized and cropped as for evaluation.
        builder: a graph builder or its name.

    Raises:
        ConfigError: for a builder that does not fit the model or makes no graph.
        InputError: for anything other than a PIL image.
    """
    if not isinstance(image, Image.Image):
        raise InputError(f"expected a PIL image, got {type(image).__name__}.")
    base = base_of(model)
    reduced, transform = dense(base), eval_transform(base)
    make = _maker(reduced, graph_builders.create(builder))
    batch = transform(image.convert("RGB"))[None]
    with running([reduced], None) as place:
        graph = make(batch.to(place, weight_type(base)))
    return ImageGraph(graph, batch, shown_pixels(batch[0], transform))


def _maker(reduced: ReducedViT, builder: GraphBuilder) -> Callable[[Tensor], Graph]:
    """From images to the graph that the builder makes of the model's embedding."""
    builder.check(reduced.info)
    build: Any = builder.built_for(reduced.info)

    def make(images: Tensor) -> Graph:
        embedded = reduced.backbone.embed(images)
        graph: Graph | None = build(embedded.x0, embedded.grid)
        if graph is None:
            raise ConfigError(f"expected a builder that makes a graph, got {builder!r}.")
        return graph

    return make


@dataclass(frozen=True, eq=False, repr=False)
class GraphStatistics(FramedResult):
    """Statistics of token graphs; ``print`` shows them.

    Attributes:
        frame: one row per statistic: ``mean`` over the images and its bootstrap interval. The names
            are those of `tokenred.analysis.measure.graph_measures.GRAPH_STATISTICS`, and
            ``unreached`` with a ``layer`` (missing for the others): the share of the tokens dropped
            in that block that are no kept token's neighbour.
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


@checked
def graph_statistics(
    source: Graph | nn.Module,
    data: Data | None = None,
    builder: GraphBuilder | str = "mixed",
    *,
    strategy: StrategyLike | None = "gtp",
    limit: Size | None = None,
    batch_size: Size = 32,
    workers: Count = 0,
    device: str | torch.device | None = None,
    seed: Count = 0,
    level: PartOf = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    progress: bool = True,
) -> GraphStatistics:
    """Degrees, reciprocity, clustering, components, spectral gap and lengths of token graphs.

    Args:
        source: a graph, each image of whose batch counts separately; or a model, whose embedding
            goes to the builder.
        data: with a model, see `tokenred.analysis.evaluate`.
        builder: a graph builder or its name.
        strategy: with a model, the strategy that drops tokens, for ``unreached``; its graph is
            replaced by the builder's. None omits that statistic.
        limit, batch_size, workers, device, split, class_map, progress: as in `evaluate`.
        seed: seed of the image subset and the bootstrap.
        level: level of the intervals.
        name: name of the model, for titles.

    Raises:
        ConfigError: for a graph with data or a model without, a builder that makes no graph, or
            numbers out of range.
        InputError: for images of several sizes.
        TokenredError: as raised by `parse_spec`, `tokenred.wrap` and the data.
    """
    if isinstance(source, Graph):
        if data is not None:
            raise ConfigError("expected a graph, or a model and data; got a graph and data.")
        values, degrees = _describe(source, source.batch)
        means = StreamingMeans(len(GRAPH_STATISTICS), seed=seed)
        means.add(values)
        frame = pd.DataFrame(_rows("a graph")).assign(**means.figures(level))
        frame = frame.assign(model="", data="", seed=seed)
        return _result(frame, level, (f"{count(source.batch, 'image')}.",), degrees)
    if data is None:
        raise ConfigError("expected data for the model's graphs, got none; or pass a graph.")
    reduced, part = dense(base_of(source)), graph_builders.create(builder)
    if strategy is not None:
        spec = parse_spec(strategy)
        spec = replace(spec, strategy=spec.strategy.replace(graph=part))
        reduced = wrap(reduced.base, spec)
    make = _maker(reduced, part)
    dropping = [x.layer for x in reduced.cost().layers if x.removed and strategy is not None]
    chosen: list[NDArray[np.float64]] = []

    def measure(images: Tensor) -> NDArray[np.float64]:
        graph = make(images)
        values, degrees = _describe(graph, len(images))
        if dropping:
            shares = _unreached(graph, reduced.run_with_trace(images)[1])
            values = np.hstack((values, torch.stack(shares, dim=1).cpu().numpy()))
        if chosen and chosen[0].shape != degrees.shape:
            raise InputError(
                f"expected images of one size, got grids of {chosen[0].shape} and {degrees.shape} "
                "patches; resize them."
            )
        chosen[:] = [np.sum([*chosen, degrees], axis=0)]
        return values

    frame, notes = means_over_images(
        [reduced], data, _rows(repr(part), dropping), measure, title="graphs", level=level,
        name=name, seed=seed, split=split, class_map=class_map, batch_size=batch_size,
        workers=workers, limit=limit, device=device, progress=progress,
    )  # fmt: skip
    return _result(frame, level, notes, chosen[0])


def _describe(graph: Graph, images: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(images, statistics)``, and the in-degrees summed over the images, on the grid."""
    matrices = [adjacency(graph, i) for i in range(graph.batch)]
    values = np.array([list(describe(matrix, graph.grid).values()) for matrix in matrices])
    degrees = np.sum([in_degree(matrix) for matrix in matrices], axis=0).reshape(graph.grid)
    # One graph may serve all images.
    shared = images // graph.batch
    return values.repeat(shared, 0), degrees * shared


def _unreached(graph: Graph, trace: Trace) -> list[Float[Tensor, " b"]]:
    """For each reduction, the share of the dropped tokens that are no kept token's neighbour.

    This does not depend on the fuser; under propagation these tokens are lost.
    """
    shares = []
    for step in trace.steps:
        before = trace.index_per_layer[step.layer - 1] if step.layer else trace.start_index
        kept = before.gather(1, step.selection.keep)
        weights = graph.weights_between(kept, step.left_index)
        shares.append((weights == 0).all(dim=1).float().mean(dim=1))
    return shares


def _rows(builder: str, dropping: Sequence[int] = ()) -> list[dict[str, Any]]:
    """The rows of the frame without their values."""
    keys = [*((name, pd.NA) for name in GRAPH_STATISTICS), *(("unreached", x) for x in dropping)]
    return [{"builder": builder, "statistic": name, "layer": layer} for name, layer in keys]


def _result(
    frame: pd.DataFrame, level: float, notes: tuple[str, ...], degrees: NDArray[np.float64]
) -> GraphStatistics:
    frame = frame.astype({"layer": "Int64"})
    return GraphStatistics(frame, level, notes, degrees / frame["images"].max())
