"""A cell of a grid: what it starts from, its setting, and its outcome."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.core.errors import ConfigError, PartError, TokenredError, shown
from tokenred.core.part import Part
from tokenred.core.provenance import own_line
from tokenred.core.registry import KINDS
from tokenred.strategies.config import resolve
from tokenred.strategies.specs import Spec, parse_spec, read_arguments, write_spec
from tokenred.strategies.strategy import (
    FIELDS,
    STEP_FIELDS,
    Strategy,
    divide_arguments,
    from_config,
    recipes,
)

if TYPE_CHECKING:
    from tokenred.analysis.measure.timing import Compile

DENSE = "dense"
DONE, FAILED, SKIPPED = "done", "failed", "skipped"
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
    """The user stopped a grid. Finished results are stored; the message says how to continue."""


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
    if isinstance(value, Part | Strategy):
        return repr(value)
    try:
        return str(getattr(value, "label", value))
    except Exception:  # whatever an object's own __str__ raises
        return shown(value)


@dataclass(frozen=True)
class Base:
    """A recipe with arguments, or a strategy."""

    label: str  # as one writes it
    method: str  # the family it belongs to
    make: Callable[..., Strategy]  # the strategy, with arguments set if it is a recipe
    fields: Mapping[str, Any] = field(default_factory=dict)  # instead of the recipe's choice
    parameters: frozenset[str] = frozenset()  # names that the recipe takes
    share: float | None = None  # of the dense model's GMACs; None for the schedule as it is

    def build(self, assigned: Mapping[str, Any]) -> Strategy:
        """The strategy of a point.

        A name means, in this order: an argument of the recipe; a field of `Strategy`; a parameter
        of whichever parts have it (``part.parameter``: of that part). A parameter that no part has
        is ignored, such as M with the graph ``none``.
        """
        if self.method == DENSE:
            return self.make()
        own = {name: value for name, value in assigned.items() if name not in OUTSIDE}
        arguments = {name: own.pop(name) for name in list(own) if name in self.parameters}
        fields = {name: own.pop(name) for name in list(own) if name in FIELDS}
        fields = {**self.fields, **fields}
        # The seed of the run also seeds the parts that draw, unless they have their own.
        if "seed" in assigned and not any(name.endswith(".seed") for name in own):
            own["seed"] = assigned["seed"]
        made = self.make(**arguments)
        if not isinstance(made, Strategy):
            raise PartError(f"recipe {self.method!r} must return a Strategy, got {shown(made)}.")
        if fields:
            made = made.replace(**fields)
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
        if isinstance(self.make, partial):
            name, start = self.label.partition(":")[0], {**self.make.keywords, **self.fields}
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

    def among(owner: Any, names: Iterable[str]) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for place in names if kind == "" else {kind} & set(names):
            before = getattr(owner, place)
            several = isinstance(before, tuple)
            after = tuple(map(changed, before)) if several else changed(before)
            if after is not before:
                changes[place] = after
        return changes

    changes = among(whole, PARTS.keys() - STEP_FIELDS)
    own = [among(step, PARTS.keys() & STEP_FIELDS) for step in whole.steps]
    if any(own):
        steps = zip(whole.steps, own, strict=True)
        changes["steps"] = tuple(step.replace(**new) if new else step for step, new in steps)
    return whole.replace(**changes) if changes else whole


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
        return Base(DENSE, DENSE, Strategy.dense)
    if isinstance(given, Mapping):
        made = from_config(dict(given))  # refuses a missing file
        if "recipe" not in given:
            return _of_spec(parse_spec(made))
        arguments = {name: value for name, value in given.items() if name != "recipe"}
        name = str(given["recipe"])
        return _of_recipe(write_spec(name, resolve(arguments)), name, arguments, None)
    spec = parse_spec(given)
    body = _body(spec)
    named = isinstance(given, str | Path) and not str(given).partition("@")[0].endswith(".toml")
    if not named or spec.method not in recipes or body.endswith(".toml"):
        return _of_spec(spec)
    arguments = read_arguments(body.partition(":")[2], spec.label)
    return _of_recipe(body, spec.method, arguments, spec.share)


def _body(spec: Spec) -> str:
    """The label without its share, if it ends with it: labels of one's own may not."""
    body, _, last = spec.label.rpartition("@")
    try:
        return body if body and float(last) == spec.share else spec.label
    except ValueError:
        return spec.label


def _of_spec(spec: Spec) -> Base:
    return Base(_body(spec), spec.method, lambda: spec.strategy, share=spec.share)


def _of_recipe(label: str, name: str, arguments: dict[str, Any], share: float | None) -> Base:
    own, fields = divide_arguments(name, resolve(arguments))
    recipe = recipes[name]
    make = partial(recipe.make, **own)
    return Base(label, name.casefold(), make, fields, recipe.parameters, share)


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
    empty = {"metrics": {}, "error": "", "traceback": "", "seconds": 0.0, "machine": {}}
    return {"key": key, "status": status, **empty, "attempts": 1, **columns}


def failure(key: str, error: BaseException) -> Outcome:
    """The outcome of a cell that raised."""
    from tokenred.analysis.measure.machine import is_out_of_memory

    what = f"{OUT_OF_MEMORY}: " * is_out_of_memory(error) + f"{type(error).__name__}: {error}"
    what += f" ({at})" if (at := own_line(error)) else ""
    text = "".join(traceback.format_exception(error))
    return outcome(key, FAILED, error=what, traceback=text)
