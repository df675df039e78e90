"""The short functions of the top level: lists, registration, cost."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tokenred.attention.score_mods import score_mods
from tokenred.backbones import adapt
from tokenred.core.errors import InputError
from tokenred.graphs.base import graph_builders
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.base import embeddings, fusers, routers, scorers, selectors
from tokenred.strategies.schedule import schedules
from tokenred.strategies.strategy import Strategy, recipes

__all__ = [
    "gmacs",
    "list_embeddings",
    "list_fusers",
    "list_graphs",
    "list_routers",
    "list_schedules",
    "list_score_mods",
    "list_scorers",
    "list_selectors",
    "list_strategies",
    "register_embedding",
    "register_fuser",
    "register_graph",
    "register_router",
    "register_schedule",
    "register_score_mod",
    "register_scorer",
    "register_selector",
    "register_strategy",
]

list_scorers = scorers.names
list_selectors = selectors.names
list_graphs = graph_builders.names
list_fusers = fusers.names
list_routers = routers.names
list_embeddings = embeddings.names
list_score_mods = score_mods.names
list_schedules = schedules.names
list_strategies = recipes.names

register_scorer = scorers.register
register_selector = selectors.register
register_graph = graph_builders.register
register_fuser = fusers.register
register_router = routers.register
register_embedding = embeddings.register
register_schedule = schedules.register
register_strategy = recipes.register
register_score_mod = score_mods.register


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
    return wrap(model, Strategy.dense())
