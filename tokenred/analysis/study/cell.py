"""What travels through a study: a cell of the grid, a task for a worker, its outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenred.analysis.study.axes import SETTINGS, plain
from tokenred.analysis.study.bases import DENSE, Base
from tokenred.strategies.strategy import Strategy

__all__ = [
    "DONE",
    "FAILED",
    "SKIPPED",
    "Cell",
    "Outcome",
    "Packed",
    "Setting",
    "StoredRow",
    "Task",
]

DONE, FAILED, SKIPPED = "done", "failed", "skipped"


@dataclass(frozen=True)
class Setting:
    """What a strategy runs on.

    Attributes:
        model, data: places in the grid's lists of models and data.
        dtype: ``"float32"``, ``"amp:bfloat16"``, …; None for the model's own.
        limit: maximum number of images.
        seed: of their choice.
    """

    model: int
    data: int
    dtype: str | None
    limit: int | None
    seed: int


@dataclass(frozen=True)
class Cell:
    """One point of a grid.

    Attributes:
        position: in the grid; negative for a reference that the grid added.
        axes: names and values.
        base: what it starts from.
        share: of the dense model's GMACs that it may cost, or None.
        setting: on what it runs.
        strategy: what runs; None where it could not be made.
        fingerprint: of the strategy.
        key: of all that determines the result: equal keys, equal results.
    """

    position: int
    axes: Mapping[str, Any]
    base: Base
    share: float | None
    setting: Setting
    strategy: Strategy | None
    fingerprint: str
    key: str

    @property
    def label(self) -> str:
        """The strategy as one writes it: ``gtp:alpha=0.1,P=4@0.65``."""
        outside = (*SETTINGS, "base", "budget")
        told = [f"{k}={_word(v)}" for k, v in self.axes.items() if k not in outside]
        text = self.base.label
        if told and self.base.method != DENSE:
            text += (":" if ":" not in text else ",") + ",".join(told)
        return text if self.share is None else f"{text}@{self.share:g}"

    @property
    def axes_json(self) -> str:
        """Names and values as JSON."""
        return json.dumps({name: plain(value) for name, value in self.axes.items()})


def _word(value: Any) -> str:
    return str(plain(value)).replace(" ", "")


@dataclass(frozen=True)
class Task:
    """A cell as a worker needs it."""

    key: str
    strategy: Strategy
    setting: Setting


@dataclass(frozen=True)
class Packed:
    """Predictions, image by image, ready to be stored.

    Attributes:
        images: digest of which images these are and what their labels are.
        count: how many.
        labels: packed ``index`` and ``label``, the same for all cells on these images.
        answers: packed ``prediction`` and ``rank``.
    """

    images: str
    count: int
    labels: bytes
    answers: bytes


@dataclass(frozen=True)
class StoredRow:
    """A result to be written: the columns of the store by name, and the predictions."""

    columns: Mapping[str, Any]
    packed: Packed | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        key: of the cell.
        status: ``"done"`` or ``"failed"``.
        metrics: plain values by name.
        packed: predictions, where a metric kept some.
        error, traceback: of a failed one.
        seconds: on the worker.
        machine: see `tokenred.analysis.describe_machine`.
        attempts: how often the cell was started.
        names: what each own metric gave.
        refused: whether no cell of the grid can be measured, for the error given.
    """

    key: str
    status: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    packed: Packed | None = None
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0
    machine: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 1
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: bool = False
