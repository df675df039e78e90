"""A cell of a grid: what it starts from, its setting, and its outcome."""

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenred.analysis.measure.machine import is_out_of_memory
from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.analysis.study.rows import DENSE, FAILED
from tokenred.core.errors import ConfigError, TokenredError, shown
from tokenred.core.notation import read_arguments
from tokenred.core.part import Part
from tokenred.core.provenance import own_line
from tokenred.core.registry import KINDS
from tokenred.core.values import Compile
from tokenred.strategies.config import resolve
from tokenred.strategies.specs import parse_spec, write_spec, write_value
from tokenred.strategies.strategy import (
    FIELDS,
    STEP_FIELDS,
    Strategy,
    from_config,
    recipes,
    strategy,
)

# How the error of a cell starts that ran out of memory.
OUT_OF_MEMORY = "out of memory"
# What a strategy runs on. These vary slowest, so that a worker can keep what it has loaded.
SETTINGS = (
    "model", "image_size", "data", "dtype", "device", "compile", "attention", "threads",
    "batch_size", "limit", "seed",
)  # fmt: skip
# Axes that identify a cell but are not arguments of its strategy.
OUTSIDE = (*SETTINGS, "base", "budget")
PARTS: dict[str, tuple[Any, ...]] = {name: (KINDS[name],) for name in KINDS if name in FIELDS}
PARTS["scorer"] += (KINDS["selector"],)  # which may contain one


class EngineError(TokenredError, RuntimeError):
    """Workers that cannot be started, or an engine that failed."""


class MetricNameError(ConfigError):
    """A metric whose value has a name with another meaning in a row."""


class StudyInterruptedError(KeyboardInterrupt):
    """The user stopped a grid. Finished results are stored; the message says how to continue.

    Attributes:
        done: such as "2 of 5 results (cells and references)".
    """

    def __init__(self, done: str, place: str) -> None:
        super().__init__(
            f"stopped: {done} are done, kept in {place}; run the same grid on that store again to "
            "continue."
        )
        self.done = done


def plain(value: Any) -> Any:
    """A value as in JSON: numbers and words unchanged, arrays as lists, anything else as text."""
    if callable(convert := getattr(value, "tolist", None)):
        value = convert()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Part):
        return write_value(value)
    if isinstance(value, Strategy):
        return repr(value)
    try:
        return str(getattr(value, "label", value))
    except Exception:  # whatever an object's own __str__ raises
        return shown(value)


@dataclass(frozen=True)
class Base:
    """What cells start from: a strategy, or a recipe with arguments."""

    label: str  # as one writes it
    method: str  # the recipe, or the family that the strategy belongs to
    strategy: Strategy
    share: float | None = None  # of the dense model's GMACs; None for the schedule as it is
    arguments: Mapping[str, Any] | None = None  # of the recipe, if it is one

    @property
    def parameters(self) -> frozenset[str]:
        """Names that the recipe takes."""
        return frozenset() if self.arguments is None else recipes[self.method].parameters

    def build(self, assigned: Mapping[str, Any]) -> Strategy:
        """The strategy of a point.

        A name means, in this order: an argument of the recipe; a field of `Strategy`; a parameter
        of whichever parts have it (``part.parameter``: of that part). A parameter that no part has
        is ignored, such as M with the graph ``none``.
        """
        made = self.strategy
        if self.method == DENSE:
            return made
        own = {name: value for name, value in assigned.items() if name not in OUTSIDE}
        known = self.parameters.union(FIELDS)
        if named := {name: own.pop(name) for name in list(own) if name in known}:
            if self.arguments is None:
                made = made.replace(**named)
            else:
                made = strategy(self.method, **{**self.arguments, **named})
        # The seed of the run also seeds the parts that draw, unless they have their own.
        if "seed" in assigned and not any(name.endswith(".seed") for name in own):
            own["seed"] = assigned["seed"]
        for name, value in own.items():
            made = _with_parameter(made, name, value)
        return made

    def written(self, assigned: Mapping[str, Any], made: Strategy | None = None) -> str:
        """The strategy of a point, in the notation of `parse_spec` if it can be.

        Args:
            assigned: names and values of the point.
            made: the strategy, if it could be built.
        """
        own = {name: value for name, value in assigned.items() if name not in OUTSIDE}
        if self.method == DENSE or not own:
            return self.label
        name, start = self.label, {}
        if self.arguments is not None:
            name, start = self.label.partition(":")[0], {**self.arguments}
            rest = own.keys() - self.parameters - set(FIELDS)
            if rest and made is not None and made.single:
                # Parameters of parts belong to the parts.
                before = self.build({n: v for n, v in assigned.items() if n not in rest})
                both = {n: (getattr(before, n), getattr(made, n)) for n in PARTS}
                own = {n: v for n, v in own.items() if n not in rest}
                own |= {n: new for n, (old, new) in both.items() if old != new}
        return write_spec(name, start | own)


def _with_parameter(whole: Strategy, name: str, value: Any) -> Strategy:
    """A strategy with a parameter of its parts set; unchanged if none has it."""
    kind, _, parameter = name.rpartition(".")

    def changed(part: Part) -> Part:
        known = getattr(part, "__dataclass_fields__", {})
        return part.replace(**{parameter: value}) if parameter in known else part

    def among(owner: Any, names: Iterable[str]) -> Any:
        changes: dict[str, Any] = {}
        for place in names if kind == "" else {kind} & set(names):
            before = getattr(owner, place)
            several = isinstance(before, tuple)
            after = tuple(map(changed, before)) if several else changed(before)
            if after is not before:
                changes[place] = after
        return owner.replace(**changes) if changes else owner

    made: Strategy = among(whole, PARTS.keys() - STEP_FIELDS)
    steps = tuple(among(step, PARTS.keys() & STEP_FIELDS) for step in whole.steps)
    same = all(new is old for new, old in zip(steps, whole.steps, strict=True))
    return made if same else made.replace(steps=steps)


def read_base(given: Any) -> Base:
    """A base from what a user writes.

    Args:
        given: a recipe's name, also with arguments and a share (``"gtp:P=4@0.65"``); ``"dense"``;
            a mapping such as ``{"recipe": "gtp", "P": 4}``; a `Strategy`, a `Spec`, or the path of
            a strategy's ``.toml``.

    Raises:
        TokenredError: as raised by `tokenred.analysis.parse_spec`.
    """
    if isinstance(given, str) and given.strip().casefold() == DENSE:
        return Base(DENSE, DENSE, Strategy.dense())
    if isinstance(given, Mapping):
        made = from_config(dict(given))  # refuses a missing file
        if "recipe" not in given:
            return read_base(made)
        own, name = {n: v for n, v in given.items() if n != "recipe"}, str(given["recipe"])
        own = resolve(own)
        return Base(write_spec(name, own), name.casefold(), made, None, own)
    spec = parse_spec(given)
    label, _, last = spec.label.rpartition("@")
    try:
        label = label if label and float(last) == spec.share else spec.label
    except ValueError:  # a label of one's own
        label = spec.label
    arguments = None
    written = isinstance(given, str | Path) and ".toml" not in str(given)
    if written and spec.method in recipes:
        arguments = resolve(read_arguments(label.partition(":")[2], spec.label))
    return Base(label, spec.method, spec.strategy, spec.share, arguments)


@dataclass(frozen=True)
class Setting:
    """What a strategy runs on: a value of each of `SETTINGS`."""

    model: ModelRef  # with its image size
    data: DataRef | None
    dtype: str | None
    device: str | None
    compile: Compile
    attention: str
    threads: int | None
    batch_size: int
    limit: int | None
    seed: int


@dataclass(eq=False, slots=True)
class Cell:
    """One point of a grid, checked: in a plan, and as a worker receives it."""

    position: int  # in the grid; -1 for a reference that the grid added
    axes: Mapping[str, Any]  # names and values as in JSON
    label: str  # the strategy as the user writes it: ``gtp:alpha=0.1,P=4@0.65``
    method: str
    place: int  # of its setting, in the plan's list
    strategy: Strategy | None  # None if it could not be built
    fingerprint: str
    key: str  # over everything that determines the result: equal keys, equal results
    error: TokenredError | None = None  # why its model cannot run it
    reference: str | None = None  # key of its reference

    @property
    def why(self) -> str:
        """Why it is skipped, in words; empty if it is not."""
        return "" if self.error is None else f"{type(self.error).__name__}: {self.error}"


Outcome = dict[str, Any]
"""The columns of a row that are known once its cell has run; predictions under ``packed``."""


def outcome(key: str, status: str, **columns: Any) -> Outcome:
    """An outcome; what is not given is empty."""
    empty = {"error": "", "traceback": "", "seconds": 0.0, "attempts": 1}
    return {"key": key, "status": status, **empty, **columns}


def failure(key: str, error: BaseException) -> Outcome:
    """The outcome of a cell that raised."""
    what = f"{OUT_OF_MEMORY}: " * is_out_of_memory(error) + f"{type(error).__name__}: {error}"
    what += f" ({at})" if (at := own_line(error)) else ""
    text = "".join(traceback.format_exception(error))
    return outcome(key, FAILED, error=what, traceback=text)
