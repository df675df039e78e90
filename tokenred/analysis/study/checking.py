"""Whether a model can do a strategy, and at what cost, for many strategies in a row."""

from __future__ import annotations

from collections.abc import Hashable

from tokenred.analysis.study.facts import ModelFacts
from tokenred.analysis.study.marks import Marks, Memo, marks_of
from tokenred.core.part import Part
from tokenred.reduced.cost import Cost
from tokenred.reduced.plan import plan_layers, strategy_cost
from tokenred.strategies.strategy import Strategy

__all__ = ["Checker"]


class Checker:
    """Checks strategies on a model that need not be loaded.

    Args:
        facts: about the model.
    """

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts
        self._graphs: Memo[bool] = Memo()
        self._counts: Memo[tuple[int, ...]] = Memo()

    def check(self, strategy: Strategy, marks: Marks) -> tuple[int, ...]:
        """The tokens removed in each block.

        Args:
            strategy: to check.
            marks: of its parts.

        Raises:
            TokenredError: for a strategy that the model cannot do.
        """
        self._graphs.get(marks["graph"], self._fits, strategy.graph)
        return self._counts.get(_mark(strategy, marks), self._resolve, strategy)

    def cost(self, strategy: Strategy) -> Cost:
        """What an image costs.

        Raises:
            TokenredError: as `check`.
        """
        counts = self.check(strategy, marks_of(strategy))
        return strategy_cost(strategy, self._facts.info, counts, self._facts.stem)

    def _fits(self, part: Part) -> bool:
        part.check(self._facts.info)
        return True

    def _resolve(self, strategy: Strategy) -> tuple[int, ...]:
        strategy.check(self._facts.info)
        plans = plan_layers(strategy, self._facts.info, self._facts.stem)
        return tuple(plan.count for plan in plans)


def _mark(strategy: Strategy, marks: Marks) -> Hashable | None:
    """Equal for strategies with the same counts.

    θ has no say in them, nor has the graph, unless it has weights that a budget must pay for.
    """
    if type(strategy.graph).learned_macs is Part.learned_macs:
        marks = {**marks, "graph": ()}
    if None in marks.values():
        return None
    return (strategy.where, *marks.values())
