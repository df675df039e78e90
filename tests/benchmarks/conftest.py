"""The scripts in ``benchmarks/``, which are no package."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def _load(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module(name)
    for own in {"targets", "reporting", "evidence"} - before:
        sys.modules.pop(own, None)


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from _load("reporting", monkeypatch)


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from _load("targets", monkeypatch)


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from _load("evidence", monkeypatch)
