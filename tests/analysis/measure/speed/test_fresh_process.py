"""What comes back from a fresh interpreter, and what does not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from torch import Tensor

import tokenred as tr
from tokenred.analysis.measure.speed import fresh_process
from tokenred.analysis.measure.speed.fresh_process import can_travel, run_fresh
from tokenred.core.errors import InputError


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Put a program in the child's place."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fresh_process, "_CHILD", "stand_in")

    def put(program: str) -> None:
        (tmp_path / "stand_in.py").write_text("def main():\n" + textwrap.indent(program, "    "))

    return put


def test_there_and_back(child) -> None:  # type: ignore[no-untyped-def]
    child("import json, sys; job = json.load(sys.stdin); print('hm'); print(json.dumps(job))")
    assert run_fresh({"a": [1, 2]}) == {"a": [1, 2]}


def test_it_finds_the_same_tokenred(child) -> None:  # type: ignore[no-untyped-def]
    child(
        "import json, importlib.util\n"
        "print(json.dumps({'at': importlib.util.find_spec('tokenred').origin}))"
    )
    assert run_fresh({})["at"] == tr.__file__


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", MemoryError, "signal 9"),
        ('print(\'{"error": "InputError", "message": "bad"}\')', InputError, "bad"),
        ('print(\'{"error": "MemoryError", "message": "full"}\')', MemoryError, "full"),
        ('print(\'{"error": "Exotic", "message": "odd"}\')', RuntimeError, "odd"),
        ("raise KeyError('x')", RuntimeError, "KeyError: 'x'"),
        ("pass", RuntimeError, "no output"),
    ],
)
def test_failures(child, program: str, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    child(program)
    with pytest.raises(error, match=message):
        run_fresh({})


def test_a_deadline(child) -> None:  # type: ignore[no-untyped-def]
    child("import time; time.sleep(60)")
    with pytest.raises(TimeoutError, match=r"longer than 0\.2 s"):
        run_fresh({}, timeout=0.2)


def test_who_can_travel() -> None:
    @tr.register_scorer("OwnForTravel")
    class OwnForTravel(tr.Scorer):
        def __call__(self, state: tr.TokenState, attention: object) -> Tensor:
            return state.image.norm(dim=-1)

    assert all(can_travel(tr.strategy(name)) for name in tr.list_strategies())
    assert not can_travel(tr.strategy("topk", scorer="OwnForTravel"))
    # Also where it lies inside another part.
    inside = tr.selectors.TopScore(OwnForTravel())
    assert not can_travel(tr.strategy("topk").replace(scorer=inside))
