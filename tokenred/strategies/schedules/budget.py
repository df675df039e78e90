"""A schedule from a budget of GMACs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Positive
from tokenred.strategies.schedule import Schedule, ScheduleContext, schedules
from tokenred.strategies.schedules.constant import Constant


@schedules.register("Budget")
class Budget(Schedule):
    """Keep as many tokens as fit a budget of GMACs: the largest cost that does not exceed it.

    Args:
        gmacs: the budget for one image, in GMACs as `tokenred.gmacs` counts them.
        schedule: the schedule to scale to the budget, keeping its shape: ``Constant`` removes
            evenly in all blocks (GTP, ToMe), ``KeepRatio`` keeps a share in some (EViT).
    """

    gmacs: Positive
    schedule: Schedule = Constant(1)

    def __post_init__(self) -> None:
        shape = schedules.create(self.schedule)
        if isinstance(shape, Budget):
            shape = shape.schedule
        # The share is set by the budget: one spelling for one schedule.
        if isinstance(shape, Constant):
            shape = Constant(1)
        elif shape.keeps and not isinstance(getattr(shape, shape.keeps), tuple):
            shape = shape.replace(**{shape.keeps: 0.7})
        object.__setattr__(self, "schedule", shape)

    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        if context.gmacs is None:
            raise ScheduleError(f"{self!r} needs a model to compute costs; wrap one with it.")
        # The fewest removals within the budget lie in [low, high].
        cost, low, high = context.gmacs, 0, context.patches - 1
        if (least := cost(self._at(high, context))) > self.gmacs:
            raise ScheduleError(
                f"{self!r}: this model costs {least:.4g} GMACs if {self.schedule!r} removes as "
                f"much as it can, and {cost(self._at(0, context)):.4g} with nothing removed. "
                "Choose a budget in between, or a schedule that removes more in the first blocks."
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
        share = float(Fraction(context.patches - step, context.patches))
        return self.schedule.scaled(share, replace(context, caps=True))
