"""One reduction: which tokens go, what becomes of them, how many, and where."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from tokenred.core.part import Part
from tokenred.core.values import Blocks, Count, checked
from tokenred.strategies.base import (
    Fuser,
    Scorer,
    Selector,
    fusers,
    names_selector,
    scorers,
    selectors,
)
from tokenred.strategies.schedule import Schedule, schedules
from tokenred.strategies.schedules.constant import Constant
from tokenred.strategies.selectors.top_score import TopScore

Place = Literal[
    "before_block", "before_attention", "inside_attention", "after_attention", "after_mlp"
]
PLACES: tuple[str, ...] = get_args(Place)
"""Where a reduction happens, in the order of a block."""


@checked
@dataclass(frozen=True, init=False)
class Step:
    """One reduction. A strategy has one or several; see `Strategy`.

    Args:
        scorer, fuser, schedule, where: as for `Strategy`.
        layers: the blocks in which the step acts, ascending; None for all that the schedule names.

    Raises:
        UnknownNameError: for an unregistered name.
        ConfigError: for a value outside its range.
        PartError: for an object of another kind.
    """

    scorer: Scorer | Selector
    fuser: Fuser
    schedule: Schedule
    where: str
    layers: tuple[int, ...] | None

    if TYPE_CHECKING:
        selector: Selector

    def __init__(
        self,
        scorer: Scorer | Selector | str,
        *,
        fuser: Fuser | str = "prune",
        schedule: Schedule | Count | str = 0,
        where: Place = "after_attention",
        layers: Blocks | None = None,
    ) -> None:
        if isinstance(schedule, int):
            schedule = Constant(schedule)
        chosen = _scorer_or_selector(scorer)
        fields: dict[str, Any] = {
            "scorer": chosen,
            "fuser": fusers.create(fuser),
            "schedule": schedules.create(schedule),
            "where": where,
            "layers": layers,
            # The scorer itself if it selects. Kept: every forward needs it.
            "selector": chosen if isinstance(chosen, Selector) else TopScore(chosen),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        plain, names = Step(self.scorer), [f.name for f in dataclasses.fields(self)]
        held = {name: getattr(self, name) for name in names}
        changed = {n: v for n, v in held.items() if n == "scorer" or v != getattr(plain, n)}
        return f"Step({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def replace(self, **changes: Any) -> Step:
        """A copy with some fields changed; names are looked up as in the constructor.

        Raises:
            UnknownNameError: for a field that a step does not have.
        """
        return dataclasses.replace(self, **changes)

    @property
    def parts(self) -> dict[str, Part]:
        """Its parts by field name."""
        return {"scorer": self.scorer, "fuser": self.fuser, "schedule": self.schedule}

    @property
    def uses_graph(self) -> bool:
        """Whether it reads the graph; if no step does, it is not built."""
        return self.scorer.uses_graph or self.fuser.uses_graph

    def acts(self, layer: int) -> bool:
        """Whether the step may act in a block."""
        return self.layers is None or layer in self.layers

    @property
    def removes(self) -> bool:
        """Whether it may remove tokens, or was told to remove none (P=0)."""
        chooses = type(self.selector).adaptive is not Selector.adaptive
        return chooses or self.schedule != Constant(0) or bool(self.schedule.written)

    def adaptive(self, layer: int, depth: int) -> bool:
        """Whether the number of tokens that it removes in a block depends on the image."""
        return self.acts(layer) and self.selector.adaptive(layer, depth)


def in_order_of_place(steps: Sequence[Step]) -> list[int]:
    """The numbers of the steps in the order in which a block runs them."""
    return sorted(range(len(steps)), key=lambda number: PLACES.index(steps[number].where))


def _scorer_or_selector(part: Scorer | Selector | str) -> Scorer | Selector:
    if isinstance(part, Selector) or (isinstance(part, str) and names_selector(part)):
        chosen = selectors.create(part)
        # A selector that only wraps a scorer is that scorer: one spelling for one method.
        return chosen.scorer if type(chosen) is TopScore else chosen
    return scorers.create(part)
