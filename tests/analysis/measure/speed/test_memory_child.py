"""A job comes in, its answer goes out; errors travel as their name and message."""

from __future__ import annotations

import io
import json
import sys

import pytest

import tokenred as tr
from tokenred.analysis import PeakMemory
from tokenred.analysis.measure.speed import memory_child
from tokenred.strategies.config import to_config

JOB = {
    "model": "digits", "strategy": None, "image_shape": None, "batch_size": 2, "threads": None,
    "device": "cpu", "amp": None, "dtype": "float32", "seed": 0, "share": None,
}  # fmt: skip


@pytest.mark.parametrize("recipe", [None, "gtp", "tome", "evit", "idlevit", "random"])
def test_strategies_travel(recipe: str | None, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    config = None if recipe is None else to_config(tr.strategy(recipe))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(JOB | {"strategy": config})))
    memory_child.main()
    found = PeakMemory.from_dict(json.loads(capsys.readouterr().out))
    assert found.peak_bytes > 0
    assert found.own_process


def test_size_and_types() -> None:
    job = JOB | {"image_shape": [3, 64, 32], "dtype": "bfloat16"}
    found = memory_child.answer(job)
    assert found["image_shape"] == (3, 64, 32)
    assert found["precision"] == "bfloat16"
    assert memory_child.answer(JOB | {"amp": "bfloat16"})["precision"] == "bfloat16"


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_child.answer(JOB | {"model": "vit_tinny"})["error"] == "UnknownNameError"
    assert memory_child.answer(JOB | {"image_shape": [3, 33, 32]})["error"] == "InputError"

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(memory_child, "measure_here", fail)
    message = "DefaultCPUAllocator: can't allocate memory"
    assert memory_child.answer(JOB) == {"error": "MemoryError", "message": message}
    message = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        memory_child.answer(JOB)
