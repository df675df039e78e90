"""What a worker does: it keeps models and images loaded, and runs one cell after the other."""

from __future__ import annotations

import copy
import platform
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from tokenred.analysis.study.axes import plain
from tokenred.analysis.study.cell import DONE, FAILED, Outcome, Setting, Task
from tokenred.analysis.study.errors import MetricNameError
from tokenred.analysis.study.loading import content_of, load_base, open_data, precision_of
from tokenred.analysis.study.metrics import Context, Metric, check_names
from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.core.errors import CheckpointError, DataError, PartError
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.strategy import Strategy

if TYPE_CHECKING:
    from tokenred.data import ImageDataset

__all__ = ["Runner", "failure"]

T = TypeVar("T")
_KEPT = 2


@dataclass
class Runner:
    """Runs tasks. It travels to a worker by pickling, and loads there what it needs.

    Attributes:
        models, data: by their places in a `Setting`.
        weights: the digest that each model had when the grid was planned.
        metrics: what is measured.
        batch_size, loaders: of the loading.
        contents: of each data the stamp and the digest of the images, as planned; none to go by
            what is there.
        axes: names of the grid's axes, which no metric may give.
        device: where to run; None for the model's device.
        room: bytes of images that are kept between cells.
        bases: models that are loaded already, by place; they do not travel.
    """

    models: tuple[ModelRef, ...]
    data: tuple[DataRef | None, ...]
    weights: tuple[str, ...]
    metrics: tuple[Metric, ...]
    batch_size: int
    contents: tuple[tuple[str | None, str], ...] = ()
    axes: tuple[str, ...] = ()
    loaders: int = 0
    device: str | None = None
    context: int = 0
    bases: Mapping[int, nn.Module] = field(default_factory=dict)
    _models: OrderedDict[Any, nn.Module] = field(default_factory=OrderedDict)
    _images: OrderedDict[Any, ImageDataset] = field(default_factory=OrderedDict)
    _machine: dict[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "bases": {}, "_models": OrderedDict(), "_images": OrderedDict()}

    def __call__(self, task: Task) -> Outcome:
        """Run a cell. What it raises is in the outcome."""
        start = time.perf_counter()
        try:
            # Parts with weights begin with the same ones in every worker.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(task.setting.seed)
                outcome = self._measure(task)
        except Exception as error:
            outcome = failure(task.key, error)
            if isinstance(error, MetricNameError):
                outcome = replace(outcome, error=str(error), refused=True)
        seconds = time.perf_counter() - start
        return replace(outcome, seconds=seconds, machine=self._describe(task))

    def _measure(self, task: Task) -> Outcome:
        from tokenred.analysis.measure.machine import measured

        setting = task.setting
        base = self._base(setting)
        model = _reduced(base, task.strategy)
        cost = model.cost()
        tokens = [cost.layers[0].tokens_in, *(layer.tokens_out for layer in cost.layers)]
        found: dict[str, Any] = {
            "gmacs": cost.gmacs,
            "overhead_gmacs": cost.overhead_gmacs,
            "tokens": " ".join(map(str, tokens)),
        }
        context = Context(
            batch_size=self.batch_size,
            workers=self.loaders,
            seed=setting.seed,
            amp=precision_of(setting.dtype)[1],
        )
        data = self._chosen(setting, base)
        with measured(model, None), torch.no_grad():
            taken, names = set(self.axes), {}
            for metric in self.metrics:
                values = _checked(metric, metric.function(model, data, context))
                check_names(metric.name, values, taken)
                taken |= values.keys()
                if metric.own:
                    names[metric.name] = tuple(sorted(values))
                found |= values
        return Outcome(task.key, DONE, found, context.packed, names=names)

    def _base(self, setting: Setting) -> nn.Module:
        dtype, _ = precision_of(setting.dtype)
        return _kept(self._models, (setting.model, dtype), lambda: self._load(setting.model, dtype))

    def _load(self, place: int, dtype: torch.dtype | None) -> nn.Module:
        ref = self.models[place]
        if ref.module is not None:
            # The user's own model stays as it is and where it is.
            same = self.device is None and dtype is None
            model = ref.module if same else copy.deepcopy(ref.module)
        else:
            given = self.bases.get(place) if dtype is None else None
            model = load_base(ref) if given is None else given
            self._check_weights(place, model)
        placed: nn.Module = model.to(device=self.device, dtype=dtype)
        return placed

    def _check_weights(self, place: int, model: nn.Module) -> None:
        from tokenred.analysis.measure.machine import weights_digest

        found = weights_digest(model)
        if found != self.weights[place]:
            raise CheckpointError(
                f"the weights of {self.models[place].label} are not those of the plan (digest "
                f"{found}, planned {self.weights[place]}): they changed, or differ on this "
                "machine. Start the grid again."
            )

    def _check_content(self, place: int, ref: DataRef, data: ImageDataset) -> None:
        """Whether the images are those of the plan, here as well."""
        if ref.dataset is not None or not self.contents:
            return
        stamp, planned = self.contents[place]
        if stamp is None or ref.stamp() != stamp:
            found = content_of(data)
            if found != planned:
                raise DataError(
                    f"the images of {ref.label} are not those of the plan (digest {found}, "
                    f"planned {planned}): they changed, or differ on this machine. Start the "
                    "grid again."
                )

    def _chosen(self, setting: Setting, base: nn.Module) -> ImageDataset | None:
        ref = self.data[setting.data]
        if ref is None:
            return None

        def choose() -> ImageDataset:
            from tokenred.analysis.study.images import KeptImages
            from tokenred.data import balanced_subset

            whole = open_data(ref, base)
            self._check_content(setting.data, ref, whole)
            count = len(whole) if setting.limit is None else setting.limit
            # Images that loading processes keep are lost with them.
            context = 0 if self.loaders else self.context // _KEPT
            return KeptImages(whole, balanced_subset(whole, count, setting.seed), context)

        key = (setting.data, setting.model, setting.limit, setting.seed)
        return _kept(self._images, key, choose)

    def _describe(self, task: Task) -> dict[str, Any]:
        from tokenred.analysis.measure.machine import describe_machine, model_device

        model = next(reversed(self._models.values()), None)
        device = torch.device("cpu") if model is None else model_device(model)
        if self._machine.get("device") != str(device):
            self._machine = {**describe_machine(device), "host": platform.node()}
        return self._machine


def _reduced(model: nn.Module, strategy: Strategy) -> ReducedViT:
    """The model under a strategy; learned parts of a reduced one go along, where they fit."""
    if isinstance(model, ReducedViT):
        return model.with_strategy(strategy)
    return wrap(model, strategy)


def failure(key: str, error: BaseException, attempts: int = 1) -> Outcome:
    """The outcome of a cell that raised."""
    text = "".join(traceback.format_exception(error))
    return Outcome(
        key, FAILED, error=f"{type(error).__name__}: {error}", traceback=text, attempts=attempts
    )


def _checked(metric: Metric, found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise PartError(
            f"metric {metric.name!r} must return names and values, got {type(found).__name__}."
        )
    return {str(name): plain(_unboxed(value)) for name, value in found.items()}


def _unboxed(value: Any) -> Any:
    """Numbers and rows of NumPy and PyTorch as Python's own."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value


def _kept(known: OrderedDict[Any, T], key: Any, make: Callable[[], T]) -> T:
    """What is kept under a key, or is made and then kept in place of the oldest."""
    if key not in known:
        while len(known) >= _KEPT:
            known.popitem(last=False)
        known[key] = make()
    known.move_to_end(key)
    return known[key]
