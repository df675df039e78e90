"""A schedule from a budget of GMACs."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Blocks, Positive
from tokenred.strategies.schedule import Schedule, ScheduleContext, layers_of, schedules
from tokenred.strategies.schedules.keep_ratio import KeepRatio
from tokenred.strategies.schedules.per_layer import PerLayer


@schedules.register("Budget")
class Budget(Schedule):
    """Keep as many tokens as fit a budget of GMACs: the largest cost that does not exceed it.

    Args:
        gmacs: the budget for one image, in GMACs as `tokenred.gmacs` counts them.
        shape: ``"constant"`` removes evenly in all blocks (GTP, ToMe), ``"ratio"`` keeps a share in
            some blocks (EViT).
        layers: the blocks, ascending; ``"all"``; None for all (constant) or the quarters (ratio).
    """

    gmacs: Positive
    shape: Literal["constant", "ratio"] = "constant"
    layers: Blocks | Literal["all"] | None = None

    @property
    def budget_shape(self) -> Literal["constant", "ratio"]:  # type: ignore[override]
        """Its own."""
        return self.shape

    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        if context.gmacs is None:
            raise ScheduleError(f"{self!r} needs a model to compute costs; wrap one with it.")
        # The fewest removals within the budget lie in [low, high].
        cost, low, high = context.gmacs, 0, context.patches - 1
        if (least := cost(self._at(high, context))) > self.gmacs:
            raise ScheduleError(
                f"{self!r}: even with a single token left this model costs {least:.4g} GMACs, and "
                f"{cost(self._at(0, context)):.4g} with nothing removed. Choose a budget between "
                "the two."
            )
        while low < high:
            middle = (low + high) // 2
            if cost(self._at(middle, context)) <= self.gmacs:
                high = middle
            else:
                low = middle + 1
        return self._at(low, context)

    def _at(self, step: int, context: ScheduleContext) -> tuple[int, ...]:
        """The counts at one setting: 0 removes nothing, ``patches − 1`` the most."""
        if self.shape == "ratio":
            share = float(Fraction(context.patches - step, context.patches))
            return KeepRatio(share, self.layers).resolve(context)
        layers = layers_of(self, self.layers or "all", context.depth)
        counts = [0] * context.depth
        for place, layer in enumerate(layers):
            counts[layer] = step // len(layers) + (place < step % len(layers))
        return PerLayer(tuple(counts)).resolve(context)
