"""Statistics of the graphs that a builder makes from images, or of one given graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
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
from tokenred.analysis.result import FramedResult, count
from tokenred.analysis.terminal_table import plain_table
from tokenred.core.errors import ConfigError, InputError, shown
from tokenred.core.values import Count, PartOf, Size, checked
from tokenred.data import eval_transform
from tokenred.data.classes import ClassMap
from tokenred.graphs import Graph, GraphBuilder
from tokenred.graphs.base import graph_builders
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import dense

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
            raise ConfigError(f"expected a builder that makes a graph, got {shown(builder)}.")
        return graph

    return make


@dataclass(frozen=True, eq=False, repr=False)
class GraphStatistics(FramedResult):
    """Statistics of token graphs; ``print`` shows them.

    Attributes:
        frame: one row per statistic: ``mean`` over the images and its bootstrap interval. The names
            are those of `tokenred.analysis.measure.graph_measures.GRAPH_STATISTICS`.
        in_degree: ``(gh, gw)`` how many tokens chose each position, mean over the images.
    """

    in_degree: NDArray[np.float64]

    def table(self) -> Table:
        title = f"Token graphs: {self.frame['builder'].iloc[0]}"
        sure = self.frame["low"].notna().any()
        names = ["statistic", "mean", f"{self.level:.0%} interval"] if sure else ["statistic", ""]
        table = plain_table(f"{title}, {self.about}" if self.about else title, names)
        for row in self.frame.to_dict("records"):
            known = np.isfinite(row["mean"])
            interval = f"{row['low']:.3f} to {row['high']:.3f}" if known else ""
            mean = f"{row['mean']:.3f}" if known else ""
            cells = [GRAPH_STATISTICS[row["statistic"]], mean, interval]
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
        limit, batch_size, workers, device, split, class_map, progress: as in `evaluate`.
        seed: seed of the image subset and the bootstrap.
        level: level of the intervals.
        name: name of the model, for titles; by default the one that `load_model` takes.

    Raises:
        ConfigError: for a graph with data or a model without, a builder that makes no graph, or
            numbers out of range.
        InputError: for images of several sizes.
        TokenredError: as raised by the data.
    """
    if isinstance(source, Graph):
        if data is not None:
            raise ConfigError("expected a graph, or a model and data; got a graph and data.")
        values, degrees = _describe(source, source.batch)
        means = StreamingMeans(len(GRAPH_STATISTICS), seed=seed)
        means.add(values)
        frame = pd.DataFrame({"builder": "a graph", "statistic": list(GRAPH_STATISTICS)})
        frame = frame.assign(**means.figures(level), model="", data="", seed=seed)
        note = f"{count(source.batch, 'image')}."
        return GraphStatistics(frame, level, (note,), degrees / source.batch)
    if data is None:
        raise ConfigError("expected data for the model's graphs, got none; or pass a graph.")
    reduced, part = dense(base_of(source)), graph_builders.create(builder)
    make = _maker(reduced, part)
    chosen: list[NDArray[np.float64]] = []

    def measure(images: Tensor) -> NDArray[np.float64]:
        graph = make(images)
        values, degrees = _describe(graph, len(images))
        if chosen and chosen[0].shape != degrees.shape:
            raise InputError(
                f"expected images of one size, got grids of {chosen[0].shape} and {degrees.shape} "
                "patches; resize them."
            )
        chosen[:] = [np.sum([*chosen, degrees], axis=0)]
        return values

    rows = [{"builder": repr(part), "statistic": name} for name in GRAPH_STATISTICS]
    frame, notes = means_over_images(
        [reduced], data, rows, measure, title="graphs", level=level, name=name, seed=seed,
        split=split, class_map=class_map, batch_size=batch_size, workers=workers, limit=limit,
        device=device, progress=progress,
    )  # fmt: skip
    return GraphStatistics(frame, level, notes, chosen[0] / frame["images"].max())


def _describe(graph: Graph, images: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(images, statistics)``, and the in-degrees summed over the images, on the grid."""
    matrices = [adjacency(graph, i) for i in range(graph.batch)]
    values = np.array([list(describe(matrix, graph.grid).values()) for matrix in matrices])
    degrees = np.sum([in_degree(matrix) for matrix in matrices], axis=0).reshape(graph.grid)
    # One graph may serve all images.
    shared = images // graph.batch
    return values.repeat(shared, 0), degrees * shared
