"""The graph that a builder makes of one photograph, and the pixels that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tokenred.analysis.measure.context import base_of, measured
from tokenred.analysis.measure.tokens.pixels import shown_pixels
from tokenred.core.errors import ConfigError, InputError
from tokenred.data import eval_transform
from tokenred.graphs import Graph, GraphBuilder
from tokenred.graphs.base import graph_builders
from tokenred.reduced.api import dense

__all__ = ["ImageGraph", "image_graph"]


@dataclass(frozen=True, eq=False)
class ImageGraph:
    """A token graph and its photograph.

    Attributes:
        graph: of a batch of 1.
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
        model: dense, or a `ReducedViT`, whose base is then taken.
        image: any size; it is resized and cropped as for evaluation.
        builder: a graph builder or its name.

    Raises:
        ConfigError: for a builder that does not fit the model, or makes no graph.
        InputError: for something that is no PIL image.
    """
    if not isinstance(image, Image.Image):
        raise InputError(f"expected a PIL image, got {type(image).__name__}.")
    base = base_of(model)
    reduced = dense(base)
    made = graph_builders.create(builder)
    made.check(reduced.info)
    build: Any = made.built_for(reduced.info)
    transform = eval_transform(base)
    batch = transform(image.convert("RGB"))[None]
    with measured(reduced, None) as place, torch.no_grad():
        weight = next(base.parameters())
        embedded = reduced.backbone.embed(batch.to(place, weight.dtype))
        graph = build(embedded.x0, embedded.grid)
    if graph is None:
        raise ConfigError(f"expected a builder that makes a graph, got {made!r}.")
    return ImageGraph(graph, batch, shown_pixels(batch[0], transform))
