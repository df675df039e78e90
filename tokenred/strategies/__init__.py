"""The parts of a method: scorers, selectors, fusers, routers, score mods, embeddings, schedules.

The published methods are in `tokenred.strategies.recipes`, one per file.
"""

from tokenred.core.registry import KINDS
from tokenred.strategies.base import Embedding, Fuser, Router, Scorer, Selector
from tokenred.strategies.schedule import Schedule

__all__ = ["Embedding", "Fuser", "Router", "Schedule", "Scorer", "Selector"]

# First the kinds of parts, then what is composed of them.
for _kind in KINDS.values():
    if _kind.folder.startswith(f"{__name__}.") and _kind.kind != "strategy":
        globals().update(_kind.built_in())
        __all__ += sorted(_kind.built_in())

from tokenred.strategies import recipes as recipes  # noqa: E402
