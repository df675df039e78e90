"""A schedule from a budget of GMACs."""

from bisect import bisect_left
from collections.abc import Callable
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
        gmacs = context.gmacs
        found = self.level(lambda level: gmacs(self.at(level, context)), context.patches - 1)
        return self.at(found, context)

    def level(self, cost: Callable[[int], float], most: int) -> int:
        """The lowest level whose cost is within the budget, from 0 to ``most``."""
        if (least := cost(most)) > self.gmacs:
            whole = cost(0)
            raise ScheduleError(
                f"the budget is {self.gmacs:.4g} GMACs ({self.gmacs / whole:.3f} of the whole); "
                f"with a schedule like {type(self.schedule).__name__} this model costs at least "
                f"{least:.4g} ({least / whole:.3f}), scaled until one token is left. Choose at "
                "least that, or a schedule that removes more in the first blocks."
            )
        return bisect_left(range(most), True, key=lambda level: cost(level) <= self.gmacs)

    def at(self, level: int, context: ScheduleContext) -> tuple[int, ...]:
        """The counts at one level: 0 removes nothing, ``patches − 1`` the most."""
        share = float(Fraction(context.patches - level, context.patches))
        return self.schedule.scaled(share, replace(context, caps=True))
