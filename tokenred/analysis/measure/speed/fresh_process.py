"""A measurement in a fresh interpreter: what can go there, and the way there and back."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from tokenred.core import errors
from tokenred.core.child import python_running
from tokenred.core.errors import ConfigError
from tokenred.core.part import Part
from tokenred.strategies.config import to_config
from tokenred.strategies.strategy import Strategy

__all__ = ["can_travel", "run_fresh"]

_CHILD = "tokenred.analysis.measure.speed.memory_child"


def can_travel(strategy: Strategy) -> bool:
    """Whether a fresh interpreter knows all parts of a strategy: those that tokenred defines."""
    try:
        to_config(strategy)
    except ConfigError:  # a part without a name
        return False
    return all(
        type(part).__module__.partition(".")[0] == "tokenred" for part in _parts_within(strategy)
    )


def _parts_within(value: Any) -> Iterator[Part]:
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        for item in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(item, Part):
                yield item
                yield from _parts_within(item)


def run_fresh(job: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
    """What a fresh interpreter answers, see `tokenred.analysis.measure.speed.memory_child`.

    Raises:
        TokenredError: as the job raised it there.
        MemoryError: where the memory did not suffice.
        TimeoutError: after ``timeout`` seconds.
        RuntimeError: where the process failed otherwise.
    """
    try:
        done = subprocess.run(
            python_running(_CHILD),
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"the fresh interpreter took longer than {timeout:g} s.") from None
    if done.returncode < 0:
        raise MemoryError(
            f"the fresh interpreter was killed by signal {-done.returncode}, as a rule for want of "
            "memory; choose a smaller batch."
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RuntimeError(f"the fresh interpreter failed: {why}")
    answer: dict[str, Any] = json.loads(lines[-1])
    if "error" in answer:
        kinds = {name: getattr(errors, name) for name in errors.__all__}
        kind = (kinds | {"MemoryError": MemoryError}).get(answer["error"], RuntimeError)
        raise kind(answer["message"])
    return answer
