"""What is measured in a cell: built-in metrics by name, and the user's own."""

import functools
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tokenred.analysis.measure.accuracy import Evaluation, evaluate
from tokenred.analysis.measure.image_costs import adaptive_cost, is_adaptive
from tokenred.analysis.measure.machine import base_of
from tokenred.analysis.measure.speed import benchmark, peak_memory
from tokenred.analysis.measure.split import time_split
from tokenred.analysis.measure.timing import image_shape_of
from tokenred.analysis.study.cell import MetricNameError
from tokenred.analysis.study.rows import OF_EVERY_ROW, Packed, pack_predictions
from tokenred.core import plugins
from tokenred.core.errors import ConfigError, PartError, UnknownNameError, shown
from tokenred.core.fingerprint import identity_of
from tokenred.core.values import Compile, parameters_of, read
from tokenred.data import ImageDataset
from tokenred.reduced.model import ReducedViT


@dataclass
class Context:
    """How to measure a cell; passed to its metrics.

    Attributes:
        batch_size, workers: for loading images.
        seed: seed of the run.
        amp: type of mixed precision, or None.
        compile: whether to time compiled models, or in which mode.
        channels_last: keep images as NHWC in memory.
        dense: the model that timings are compared with; None for the reduced model's base.
    """

    batch_size: int
    workers: int
    seed: int
    amp: torch.dtype | None
    compile: Compile = False
    channels_last: bool = False
    dense: nn.Module | None = None
    evaluation: Evaluation | None = None  # from a pass over the images shared with other cells
    packed: Packed | None = None  # what was passed to `keep`

    def keep(self, evaluation: Evaluation) -> None:
        """Store the predictions of an evaluation, image by image."""
        self.packed = pack_predictions(evaluation)


Function = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True)
class Metric:
    """A named measurement: ``function(model, data, context) -> {name: value}``, plain values.

    The model is a `ReducedViT` on its device, in eval mode and without gradients; the data an
    `ImageDataset` of the chosen images, or None.
    """

    name: str
    function: Function
    version: str  # part of a result's key, so that a changed metric is measured again
    needs_data: bool = True
    timed: bool = False  # results are specific to a machine, number of threads, device and engine
    batched: bool = True  # they are specific to a batch size

    def told(self, how: Mapping[str, Any]) -> list[Any]:
        """What determines the results of a measurement; ``how`` is what timings depend on."""
        batch = how["batch_size"] if self.batched or self.timed else None
        return [self.name, self.version, batch, dict(how) if self.timed else None]


_METRICS: dict[str, Metric] = {}


def register_metric(
    name: str,
    *,
    version: int | str = "",
    needs_data: bool = True,
    timed: bool = False,
    batched: bool = True,
) -> Callable[[Function], Function]:
    """Decorator that registers a function as a metric; registering a name again replaces it.

    Args:
        name: for ``Grid(metrics=[name])``.
        version: change it by hand when the results change; without one, the source counts.
        needs_data: whether it needs images.
        timed: whether it measures time or memory, so that a result is specific to a machine, number
            of threads, device and engine.
        batched: whether its results depend on the batch size.

    Raises:
        ConfigError: for a name that is not a word, or that a plug-in may not replace.
        MetricNameError: for the name of a column that every row has.
    """
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"a metric needs a name, got {shown(name)}.")
    check_names(name, [name])

    def add(function: Function) -> Function:
        key, package = name.casefold(), plugins.loading()
        old = _METRICS.get(key)
        if old and package and _defined(old.function) != _defined(function):
            raise ConfigError(
                f"metric {name!r} of {_defined(function)} (plug-in {package}) is taken by "
                f"{_defined(old.function)}; a plug-in needs its own names."
            )

        def undo() -> None:
            _METRICS.pop(key, None)
            if old:
                _METRICS[key] = old

        told = str(version) or _source(function)
        _METRICS[key] = Metric(name, function, told, needs_data, timed, batched)
        plugins.note("metric", name, undo)
        return function

    return add


def _defined(function: Function) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def list_metrics() -> list[str]:
    """The names of all registered metrics."""
    plugins.load_plugins()
    return sorted(metric.name for metric in _METRICS.values())


def read_metrics(given: Iterable[str | Mapping[str, Any] | Function]) -> tuple[Metric, ...]:
    """Metrics from names, tables of a name and options, and functions."""
    if isinstance(given, str):
        given = [given]
    return tuple(_read(metric) for metric in given)


def _read(given: Any) -> Metric:
    if isinstance(given, str):
        if given.casefold() not in _METRICS:
            plugins.load_plugins()
        if given.casefold() not in _METRICS:
            raise UnknownNameError.of("metric", given, list_metrics())
        return _METRICS[given.casefold()]
    if isinstance(given, Mapping):
        return _with_options(dict(given))
    if not callable(given):
        raise PartError(
            f"expected a metric: a name, a table with 'name', or a function, got {shown(given)}."
        )
    name = getattr(given, "__name__", type(given).__name__)
    check_names(name, [name])
    return Metric(name, given, _source(given), needs_data=False)


def _with_options(given: dict[str, Any]) -> Metric:
    """A metric with its own options: ``{"name": "speed", "pairs": 9}``."""
    metric = _read(read(str, given.pop("name", None), "the name of a metric"))
    known = parameters_of(metric.function)
    for name, value in given.items():
        if name not in known or name in ("model", "data", "context"):
            raise UnknownNameError.of("option", name, known, f"metric {metric.name!r}")
        given[name] = read(known[name], value, f"{name} of metric {metric.name!r}")
    told = f"{metric.version} {sorted(given.items())}"
    return replace(metric, function=functools.partial(metric.function, **given), version=told)


def check_names(metric: str, names: Iterable[str], taken: Iterable[str] = ()) -> None:
    """Refuse names with another meaning in a row, or that an axis or another metric has."""
    taken = set(taken)
    for name in names:
        if name in OF_EVERY_ROW or name in taken:
            what = "another metric or an axis" if name in taken else "a column of every row"
            raise MetricNameError(
                f"metric {metric!r} gives {name!r}, which is the name of {what}; use another name, "
                f"such as 'my_{name}'."
            )


def _source(function: Any) -> str:
    """A digest of a function's code and of what it uses."""
    inner = function
    while isinstance(inner, functools.partial | types.MethodType):
        inner = inner.func if isinstance(inner, functools.partial) else inner.__func__
    named = inner if isinstance(inner, types.FunctionType) else type(inner)
    name = f"metric {getattr(inner, '__name__', named.__name__)}"
    return identity_of(function, name, home=named.__module__)


def evaluation_options(context: Context) -> dict[str, Any]:
    """The arguments of `tokenred.analysis.evaluate` for a cell."""
    return {
        "batch_size": context.batch_size, "workers": context.workers, "amp": context.amp,
        "channels_last": context.channels_last, "progress": False, "seed": context.seed,
    }  # fmt: skip


@register_metric("accuracy", version=1, batched=False)
def accuracy(model: ReducedViT, data: ImageDataset | None, context: Context) -> Mapping[str, Any]:
    """Top-1 and top-5 accuracy; keeps the predictions, so that comparisons are paired."""
    if data is None:
        raise ConfigError("accuracy needs images; pass data= to the grid.")
    found = context.evaluation or evaluate(model, data, **evaluation_options(context))
    context.keep(found)
    return {
        "top1": found.top1,
        "top5": found.top5,
        "images": found.count,
        "unreadable": len(found.skipped),
    }


@register_metric("speed", version=2, needs_data=False, timed=True)
def speed(
    model: ReducedViT,
    data: ImageDataset | None,
    context: Context,
    *,
    pairs: int = 15,
    warmup: int = 2,
    max_seconds: float | None = None,
) -> Mapping[str, Any]:
    """Images per second and speed-up over the dense model, which runs right before each run."""
    (timing,) = benchmark(
        {"cell": model}, dense=context.dense, batch_size=context.batch_size, amp=context.amp,
        compile=context.compile, pairs=pairs, warmup=warmup, max_seconds=max_seconds,
        seed=context.seed, progress=False,
    )  # fmt: skip
    return {name: value for name, value in timing.to_dict().items() if name not in _OF_ROWS}


_OF_ROWS = ("name", "batch_size", "gmacs", "overhead_gmacs")


@register_metric("split", version=1, needs_data=False, timed=True)
def split(
    model: ReducedViT, data: ImageDataset | None, context: Context, *, repeats: int = 15
) -> Mapping[str, Any]:
    """Where the time of a forward goes, as shares of it."""
    return time_split(
        model, None, context.batch_size, repeats=repeats, amp=context.amp, seed=context.seed,
        progress=False,
    )  # fmt: skip


@register_metric("memory", version=2, needs_data=False, timed=True)
def memory(model: ReducedViT, data: ImageDataset | None, context: Context) -> Mapping[str, Any]:
    """Peak memory of a forward, reduced and dense."""
    shape = image_shape_of(model.base)
    own, dense = (
        peak_memory(each, shape, context.batch_size, amp=context.amp, seed=context.seed)
        for each in (model, context.dense or base_of(model))
    )
    return {"peak_bytes": own, "dense_peak_bytes": dense}


@register_metric("mean_cost", version=1, needs_data=False)
def mean_cost(model: ReducedViT, data: ImageDataset | None, context: Context) -> Mapping[str, Any]:
    """The average cost of images under a method whose token counts depend on the image.

    Empty for other methods, or without images.
    """
    if data is None or not is_adaptive(model):
        return {}
    found = adaptive_cost(model, data, batch_size=context.batch_size, workers=context.workers)
    return {
        "mean_gmacs": found.mean_gmacs,
        "mean_overhead_gmacs": found.mean_overhead_gmacs,
        "mean_tokens": [round(float(count), 4) for count in found.mean_counts],
    }
