"""The short functions of the top level: lists, registration, cost."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tokenred.attention.edits import attention_edits
from tokenred.backbones import adapt
from tokenred.core.errors import InputError
from tokenred.core.model import ReducedViT
from tokenred.core.plan import Strategy, recipes
from tokenred.core.wrap import wrap
from tokenred.graphs.base import graph_builders
from tokenred.strategies.base import embeddings, fusers, routes, scorers, selectors
from tokenred.strategies.schedules import schedules

__all__ = [
    "gmacs",
    "list_attention_edits",
    "list_embeddings",
    "list_fusers",
    "list_graphs",
    "list_routes",
    "list_schedules",
    "list_scorers",
    "list_selectors",
    "list_strategies",
    "register_attention_edit",
    "register_embedding",
    "register_fuser",
    "register_graph",
    "register_route",
    "register_schedule",
    "register_scorer",
    "register_selector",
    "register_strategy",
]

list_scorers = scorers.names
list_selectors = selectors.names
list_graphs = graph_builders.names
list_fusers = fusers.names
list_routes = routes.names
list_embeddings = embeddings.names
list_attention_edits = attention_edits.names
list_schedules = schedules.names
list_strategies = recipes.names

register_scorer = scorers.register
register_selector = selectors.register
register_graph = graph_builders.register
register_fuser = fusers.register
register_route = routes.register
register_embedding = embeddings.register
register_schedule = schedules.register
register_strategy = recipes.register
register_attention_edit = attention_edits.register


def gmacs(model: nn.Module, image_shape: Sequence[int] | None = None) -> float:
    """Cost of one image in 10⁹ multiply-accumulates, in closed form.

    Counts the backbone at the token counts that really run, and parts with weights. What a method
    spends on choosing and fusing is not in it: see ``reduced.cost().overhead_gmacs``. Where the
    images decide how many tokens go (``ats``), this is the most that one may cost, and
    `tokenred.analysis.adaptive_cost` counts what images do cost.

    Args:
        model: a `ReducedViT`, or a dense model that an adapter knows.
        image_shape: ``(channels, height, width)`` or ``(height, width)``; None for the model's own.

    Raises:
        BackboneError: for a model that no adapter knows.
        InputError: for another shape.
    """
    size = None
    if image_shape is not None:
        if len(image_shape) not in (2, 3):
            raise InputError(f"image_shape is (channels, height, width), got {tuple(image_shape)}.")
        size = (int(image_shape[-2]), int(image_shape[-1]))
    reduced = model if isinstance(model, ReducedViT) else dense(model)
    return reduced.cost(size).gmacs


def dense(model: nn.Module) -> ReducedViT:
    """A model wrapped with nothing removed."""
    adapt(model)
    return wrap(model, Strategy("Random"))
