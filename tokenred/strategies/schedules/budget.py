"""A schedule from a budget of GMACs."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import fields, replace
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
        object.__setattr__(self, "written", shape.written)
        if isinstance(shape, Budget):
            shape = shape.schedule
        # The share is set by the budget: one spelling for one schedule.
        elif amount := _amount(shape):
            shape = Constant(1) if amount == "P" else shape.replace(**{amount: 0.7})
        else:
            object.__setattr__(self, "written", "")  # it counts, as the proportions
        object.__setattr__(self, "schedule", shape)

    def __repr__(self) -> str:
        # Without the amount in its schedule, which the budget sets.
        shape, amount = self.schedule, _amount(self.schedule)
        own = ((field, getattr(shape, field.name)) for field in fields(shape))
        told = [f"{f.name}={v!r}" for f, v in own if f.name != amount and v != f.default]
        name = type(shape).__name__
        return f"Budget(gmacs={self.gmacs:.4g}, schedule={name}({', '.join(told)}))"

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
        if not level:  # whatever the schedule makes of a share of 1
            return (0,) * context.depth
        share = float(Fraction(context.patches - level, context.patches))
        return self.schedule.scaled(share, replace(context, caps=True))


def _amount(shape: Schedule) -> str:
    """The parameter of a schedule that a budget sets; "" if it scales the counts instead."""
    name = "P" if type(shape) is Constant else shape.keeps  # a subclass may scale otherwise
    return "" if name and isinstance(getattr(shape, name), tuple) else name
