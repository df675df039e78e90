from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


MODULES = {
    "__init__": "",
    "scaling": """
import functools
import torch

POWER = {power}

@functools.cache
def factor():
    return {factor}

def scale(x):
    return x.norm(dim=-1) ** POWER
""",
    "part": """
import torch
import tokenred as tr
from {package} import scaling
from {package}.scaling import factor

class Part(tr.Scorer):
    @torch.no_grad()
    def __call__(self, state, attention):
        return factor() * scaling.scale(state.image)
""",
}


@pytest.fixture
def fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Of a part in a package of several modules, imported anew."""

    def of(power: int = 1, factor: int = 1) -> str:
        folder = tmp_path / f"{power}{factor}"
        (folder / "packed_part").mkdir(parents=True)
        for name, text in MODULES.items():
            code = text.format(power=power, factor=factor, package="packed_part")
            (folder / "packed_part" / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(folder)
        for module in [m for m in sys.modules if m.partition(".")[0] == "packed_part"]:
            monkeypatch.delitem(sys.modules, module)
        found = importlib.import_module("packed_part.part")
        for module in [m for m in sys.modules if m.partition(".")[0] == "packed_part"]:
            monkeypatch.delitem(sys.modules, module)
        return tr.Strategy(found.Part()).fingerprint()

    return of


def test_helpers_in_other_modules_of_the_package_count(fingerprint: Callable[..., str]) -> None:
    assert len({fingerprint(), fingerprint(power=2), fingerprint(factor=2)}) == 3
