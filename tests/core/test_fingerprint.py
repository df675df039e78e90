from __future__ import annotations

from typing import Any

import tokenred as tr

CELL = """
import tokenred as tr

FACTOR = {factor}

def helper(x):
    return x.norm(dim=-1) ** {power}

class Edited(tr.Scorer):
    scale: float = 1.0

    def __call__(self, state, attention):
        return FACTOR * helper(state.image)
"""


def _cell(factor: float = 1.0, power: int = 1) -> str:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL.format(factor=factor, power=power), "<cell>", "exec"), names)
    return tr.Strategy(names["Edited"]()).fingerprint()


def test_the_same_cell_has_the_same_fingerprint() -> None:
    assert _cell() == _cell()


def test_an_edited_helper_or_constant_counts() -> None:
    assert len({_cell(), _cell(power=2), _cell(factor=2.0)}) == 3


def test_parameters_count() -> None:
    prints = {tr.strategy("gtp", P=p, alpha=a).fingerprint() for p in (1, 2) for a in (0.1, 0.2)}
    assert len(prints) == 4


def test_source_of_a_class_with_a_file_is_followed() -> None:
    from tokenred.core.fingerprint import source_of

    class Filed(tr.Scorer):
        """Only code counts."""

        @property
        def needs(self) -> tuple[tr.Need, ...]:
            return (tr.Need.diagonal("mean"),)

    assert 'Need.diagonal("mean")' in source_of(Filed)
    assert source_of(tr.scorers.MixedAttn) == ""
