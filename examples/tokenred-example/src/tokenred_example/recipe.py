"""The parts put together."""

from __future__ import annotations

import tokenred as tr
from tokenred_example.contrast import Contrast
from tokenred_example.spread import Spread
from tokenred_example.window import Window

__all__ = ["contrast"]


@tr.register_strategy("contrast")
def contrast(
    *, keep_rate: float = 0.7, radius: int = 1, alpha: float = 0.1, reference: bool = False
) -> tr.Strategy:
    """Keep what stands out, and spread the rest over its window.

    Args:
        keep_rate: share of the living tokens kept at each quarter of the depth.
        radius: of the windows.
        alpha: magnitude of the spreading.
        reference: nothing differs; accepted so that all recipes take it.
    """
    return tr.Strategy(
        scorer=Contrast(),
        graph=Window(radius),
        fuser=Spread(alpha),
        schedule=tr.KeepRatio(keep_rate),
    )
