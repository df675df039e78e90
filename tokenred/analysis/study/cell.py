"""What travels through a study: a cell of the grid, a task for a worker, its outcome."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenred.analysis.study.axes import OUTSIDE, plain
from tokenred.analysis.study.building import DENSE, Base
from tokenred.core.errors import ConfigError, TokenredError
from tokenred.strategies.strategy import Strategy

if TYPE_CHECKING:
    from tokenred.analysis.measure.clock import Compile

__all__ = [
    "DONE", "FAILED", "OUT_OF_MEMORY", "SKIPPED", "Cell", "EngineError", "MetricNameError",
    "Outcome", "Packed", "Setting", "StudyInterruptedError", "Task", "failure",
]  # fmt: skip

DONE, FAILED, SKIPPED = "done", "failed", "skipped"
# What the error of a failed cell begins with where memory did not suffice.
OUT_OF_MEMORY = "out of memory"


class EngineError(TokenredError, RuntimeError):
    """Workers that cannot be started, or an engine that broke down."""


class MetricNameError(ConfigError):
    """A metric that gives a value by a name which says something else in a row."""


class StudyInterruptedError(KeyboardInterrupt):
    """The user stopped a grid. What was finished is stored; the message says how to go on."""


@dataclass(frozen=True)
class Setting:
    """What a strategy runs on.

    Attributes:
        model, data: places in the grid's lists of models (each at an image size) and data.
        dtype: ``"float32"``, ``"amp:bfloat16"``, …; None for the model's own.
        device: where to run; None for the model's device.
        compile: False, True, or a mode of ``torch.compile``, for timings.
        threads: CPU threads; None leaves them.
        batch_size: images per batch.
        limit: maximum number of images.
        seed: of their choice.
    """

    model: int
    data: int
    dtype: str | None
    device: str | None
    compile: Compile
    threads: int | None
    batch_size: int
    limit: int | None
    seed: int


@dataclass(eq=False, slots=True)
class Cell:
    """One point of a grid.

    Attributes:
        position: in the grid; -1 for a reference that the grid added.
        axes: names and values.
        base: what it starts from.
        share: of the dense model's GMACs that it may cost, or None.
        setting: on what it runs; None where not even the model could be had.
        strategy: what runs; None where it could not be made.
        fingerprint: of the strategy.
        key: of all that determines the result: equal keys, equal results.
        error: why its model cannot do it; None where it can.
        reference: key of what it is compared with, or None.
    """

    position: int
    axes: Mapping[str, Any]
    base: Base
    share: float | None
    setting: Setting
    strategy: Strategy | None
    fingerprint: str
    key: str
    error: TokenredError | None = None
    reference: str | None = None

    @property
    def label(self) -> str:
        """The strategy as one writes it: ``gtp:alpha=0.1,P=4@0.65``."""
        told = [f"{k}={_word(v)}" for k, v in self.axes.items() if k not in OUTSIDE]
        text = self.base.label
        if told and self.base.method != DENSE:
            text += (":" if ":" not in text else ",") + ",".join(told)
        return text if self.share is None else f"{text}@{self.share:g}"

    @property
    def why(self) -> str:
        """Why it is left out, in words; empty where it is not."""
        return "" if self.error is None else f"{type(self.error).__name__}: {self.error}"

    @property
    def plain_axes(self) -> dict[str, Any]:
        """Names and values as JSON holds them."""
        return {name: plain(value) for name, value in self.axes.items()}

    @property
    def axes_json(self) -> str:
        """The same as text."""
        return json.dumps(self.plain_axes)


def _word(value: Any) -> str:
    return str(plain(value)).replace(" ", "")


@dataclass(frozen=True)
class Task:
    """A cell as a worker needs it; `as_it_is` runs the model of the setting under no strategy."""

    key: str
    strategy: Strategy
    setting: Setting
    as_it_is: bool = False


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
class Outcome:
    """What became of a task.

    Attributes:
        key: of the cell.
        status: ``"done"``, ``"failed"`` or ``"skipped"``.
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


def failure(key: str, error: BaseException, attempts: int = 1) -> Outcome:
    """The outcome of a cell that raised."""
    from tokenred.analysis.measure.out_of_memory import is_out_of_memory

    text = "".join(traceback.format_exception(error))
    what = f"{OUT_OF_MEMORY}: " * is_out_of_memory(error) + f"{type(error).__name__}: {error}"
    return Outcome(key, FAILED, error=what, traceback=text, attempts=attempts)
