"""What a method is made of: scorers, selectors, fusers, routers, score mods, embeddings, schedules.

The published methods stand in `tokenred.strategies.recipes`, one file each.
"""

from tokenred.core.registry import KINDS
from tokenred.strategies.base import Embedding, Fuser, Router, Scorer, Selector
from tokenred.strategies.schedule import Schedule

__all__ = ["Embedding", "Fuser", "Router", "Schedule", "Scorer", "Selector"]

# The kinds that stand here, and after them what is composed of them.
for _kind in KINDS.values():
    if _kind.folder.startswith(f"{__name__}.") and _kind.kind != "strategy":
        globals().update(_kind.built_in())
        __all__ += sorted(_kind.built_in())

from tokenred.strategies import recipes as recipes  # noqa: E402
