"""From a position in a grid to a cell, without loading anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenred.analysis.study.axes import SETTINGS
from tokenred.analysis.study.bases import DENSE, Base, read_base
from tokenred.analysis.study.cell import Cell, Setting
from tokenred.analysis.study.checking import Checker
from tokenred.analysis.study.design import Design
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.fingerprints import Fingerprints
from tokenred.analysis.study.marks import marks_of
from tokenred.analysis.study.refs import KEYS
from tokenred.core.errors import TokenredError
from tokenred.core.fingerprint import digest
from tokenred.strategies.specs import at_budget

__all__ = ["Planner", "RefusedError"]


class RefusedError(Exception):
    """A cell that its model cannot do.

    Args:
        cell: as far as it could be made.
        error: why.
    """

    def __init__(self, cell: Cell, error: TokenredError) -> None:
        super().__init__(str(error))
        self.cell = cell
        self.reason = f"{type(error).__name__}: {error}"
        self._error = error

    def named(self, what: str) -> TokenredError:
        """The error, with what it is about."""
        return type(self._error)(f"{what}, {self.cell.label}: {self._error}")


class Planner:
    """Makes the cells of a grid, for one pass over it: sources of own parts are read once.

    Args:
        design: of the grid.
        facts: about its models and data.
        how: what timings are determined by besides the setting; ``batch_size`` at least.
    """

    def __init__(self, design: Design, facts: Facts, how: Mapping[str, Any]) -> None:
        self._design = design
        self._facts = facts
        self._fingerprints = Fingerprints()
        self._checkers: dict[int, Checker] = {}
        self._settings: dict[tuple[Any, ...], tuple[Setting, str]] = {}
        self._metrics = [metric.told(how) for metric in design.metrics]
        self._dense = read_base(DENSE)

    def cell(self, position: int) -> Cell | None:
        """The cell at a position; None where the grid's ``where`` leaves it out.

        Raises:
            RefusedError: for one that its model cannot do.
        """
        assigned = self._design.axes.at(position)
        if assigned is None:
            return None
        base, share = self._design.base(assigned), self._design.budget(assigned)
        return self._make(position, base, assigned, base.share if share is None else share)

    def reference(self, cell: Cell) -> Cell | None:
        """What a cell is compared with: the dense model or the base itself, in its setting."""
        against = self._design.against
        if against is None:
            return None
        dense = against == DENSE
        kept = SETTINGS if dense else (*SETTINGS, "base")
        assigned = {name: value for name, value in cell.axes.items() if name in kept}
        if dense:
            return self._make(-1, self._dense, assigned, None)
        return self._make(-1, cell.base, assigned, cell.base.share)

    def checker(self, setting: Setting) -> Checker:
        """Checks and costs for the model of a setting."""
        place = setting.model
        if place not in self._checkers:
            self._checkers[place] = Checker(self._facts.model(self._design.models[place]))
        return self._checkers[place]

    def _make(
        self, position: int, base: Base, assigned: Mapping[str, Any], share: float | None
    ) -> Cell:
        setting, prefix = self._setting(assigned)
        if base.method == DENSE:
            share = None
        strategy, fingerprint = None, ""
        try:
            strategy = self._design.builder(base, assigned)
            if share is not None:
                model = self._facts.model(self._design.models[setting.model])
                strategy = at_budget(strategy, share * model.gmacs)
            marks = marks_of(strategy)
            fingerprint = self._fingerprints(strategy, marks)
            self.checker(setting).check(strategy, marks)
        except TokenredError as error:
            cell = Cell(position, assigned, base, share, setting, strategy, fingerprint, "")
            told = fingerprint or f"{cell.label} {cell.axes_json}"
            cell = Cell(
                position, assigned, base, share, setting, strategy, fingerprint,
                digest(prefix + told),
            )  # fmt: skip
            raise RefusedError(cell, error) from error
        key = digest(prefix + fingerprint)
        return Cell(position, assigned, base, share, setting, strategy, fingerprint, key)

    def _setting(self, assigned: Mapping[str, Any]) -> tuple[Setting, str]:
        """What a point runs on, and what of it goes into the key."""
        mark = tuple(assigned.get(name, _DEFAULT) for name in SETTINGS)
        if mark not in self._settings:
            setting = self._design.setting(assigned)
            model = self._design.models[setting.model]
            data = self._design.datasets[setting.data]
            told = (
                self._facts.model(model).identity,
                "" if data is None else self._facts.data(data, model).identity,
                setting.dtype,
                setting.limit,
                setting.seed,
                self._metrics,
                KEYS,
            )
            self._settings[mark] = setting, json.dumps(told)
        return self._settings[mark]


_DEFAULT = object()
