"""A worker: it keeps models and images loaded, and runs one cell after another."""

from __future__ import annotations

import copy
import gc
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from tokenred.analysis.study.cell import (
    DONE,
    MetricNameError,
    Outcome,
    Setting,
    Task,
    failure,
    plain,
)
from tokenred.analysis.study.facts import content_of
from tokenred.analysis.study.metrics import Context, Metric, check_names, evaluation_options
from tokenred.analysis.study.plan import cost_columns
from tokenred.analysis.study.refs import DataRef, ModelRef, precision_of
from tokenred.attention import pick_engine
from tokenred.core.errors import CheckpointError, DataError, PartError
from tokenred.data import SKIPPED_LABEL, ImageDataset
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import Spec

if TYPE_CHECKING:
    from tokenred.analysis.measure.accuracy import Evaluation

T = TypeVar("T")
_KEPT = 2
# Cells that share a pass over images that do not fit in memory; a kill loses at most these.
_TOGETHER = 16


@dataclass
class Runner:
    """Runs tasks. It is pickled to a worker, and loads there what it needs."""

    models: tuple[ModelRef, ...]  # these and the data by their places in a `Setting`
    data: tuple[DataRef | None, ...]
    weights: tuple[str, ...]  # the digest that each model had when the grid was planned
    metrics: tuple[Metric, ...]
    contents: tuple[tuple[str | None, str], ...] = ()  # as planned: stamp of data, and of images
    axes: tuple[str, ...] = ()  # whose names no metric may give
    channels_last: bool = False
    raising: bool = False  # what a cell raises, rather than put it into the outcome
    loaders: int = 0  # processes that load images
    room: int = 0  # bytes of images that are kept between cells
    reference: int | None = None  # the model that timings are taken against; None for the own
    bases: Mapping[int, nn.Module] = field(default_factory=dict)  # loaded here; do not travel
    _models: OrderedDict[Any, nn.Module] = field(default_factory=OrderedDict)
    _images: OrderedDict[Any, KeptImages] = field(default_factory=OrderedDict)
    _shared: dict[Any, Any] = field(default_factory=dict)
    _compiled: bool = False
    # Of cells that were evaluated together: what is still to be handed out, and their seconds.
    _evaluated: dict[str, Evaluation | None] = field(default_factory=dict)
    _credit: dict[str, float] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "bases": {}, "_models": OrderedDict(), "_images": OrderedDict(), "_shared": {},
        }  # fmt: skip

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Run cells. If one raises, the error is in its outcome."""
        for at, task in enumerate(tasks):
            yield self._run(task, tasks[at + 1 : at + _TOGETHER])

    def _run(self, task: Task, following: Sequence[Task]) -> Outcome:
        from tokenred.analysis.measure.machine import cpu_threads

        start = time.perf_counter()
        with cpu_threads(task.setting.threads):
            try:
                with torch.random.fork_rng(devices=[]):
                    outcome = self._measure(task, following)
            except Exception as error:
                if self.raising:
                    raise
                outcome = failure(task.key, error)
                if isinstance(error, MetricNameError):
                    outcome = replace(outcome, error=str(error), refused=True)
            machine = self._describe(task.setting)
        seconds = time.perf_counter() - start + self._credit.pop(task.key, 0.0)
        return replace(outcome, seconds=seconds, machine=machine)

    def _measure(self, task: Task, following: Sequence[Task]) -> Outcome:
        from tokenred.analysis.measure.machine import channels_last, measured

        setting = task.setting
        model = self._model(task)
        found = cost_columns(model.cost())
        reference = None
        if self.reference is not None:
            reference = self._base(replace(setting, model=self.reference))
        data = self._chosen(setting)
        context = Context(
            batch_size=setting.batch_size, workers=self.loaders, seed=setting.seed,
            amp=precision_of(setting.dtype)[1], compile=setting.compile,
            channels_last=self.channels_last, dense=reference, kept=self._shared,
        )  # fmt: skip
        context.together = partial(self._together, context, task, model, data, following)
        self._compiled |= bool(setting.compile)
        both = [model] if reference is None else [model, reference]
        with measured(model, None), channels_last(both, self.channels_last), torch.no_grad():
            taken, names = set(self.axes), {}
            for metric in self.metrics:
                values = _checked(metric, metric.function(model, data, context))
                check_names(metric.name, values, taken)
                taken |= values.keys()
                if metric.own:
                    names[metric.name] = tuple(sorted(values))
                found |= values
        return Outcome(task.key, DONE, found, context.packed, names=names)

    def _together(
        self,
        context: Context,
        task: Task,
        model: ReducedViT,
        data: KeptImages | None,
        following: Sequence[Task],
    ) -> Evaluation | None:
        """The evaluation of a cell, in one pass over the images together with following cells.

        None if the images are kept anyway, or if one of these cells cannot be evaluated.
        """
        from tokenred.analysis.measure.accuracy import evaluate_together

        if task.key in self._evaluated:
            return self._evaluated.pop(task.key)
        others = [other for other in following if other.setting == task.setting]
        if data is None or not others or data.fit:
            return None
        start = time.perf_counter()
        models: dict[str, nn.Module] = {task.key: model}
        for other in others:
            try:
                models[other.key] = self._model(other)
            except Exception:  # it will say so when its turn comes
                continue
        try:
            self._evaluated |= evaluate_together(models, data, **evaluation_options(context))
        except Exception:  # each alone, to see whose it is
            self._evaluated |= dict.fromkeys(models)
        else:
            seconds = time.perf_counter() - start
            self._credit |= dict.fromkeys(models, seconds / len(models))
            self._credit[task.key] -= seconds
        return self._evaluated.pop(task.key)

    def _model(self, task: Task) -> ReducedViT:
        """The model with a strategy, and with the learned parts of a reduced one if they fit."""
        base = self._base(task.setting)
        # Parts with weights begin with the same ones in every worker.
        torch.manual_seed(task.setting.seed)
        engine = task.setting.attention
        if not isinstance(base, ReducedViT):
            return wrap(base, Spec(task.key, task.key, task.strategy), engine=engine)
        if task.as_it_is:
            return base
        reduced = base.with_strategy(task.strategy)
        if engine != "auto":
            reduced.engines = pick_engine(engine)
        return reduced

    def _base(self, setting: Setting) -> nn.Module:
        dtype, _ = precision_of(setting.dtype)
        key = (setting.model, dtype, setting.device)
        return _kept(self._models, key, partial(self._load, setting, dtype))

    def _load(self, setting: Setting, dtype: torch.dtype | None) -> nn.Module:
        # Leave nothing behind that affects the next model.
        self._shared.clear()
        if self._compiled:
            torch.compiler.reset()
            self._compiled = False
        if str(setting.device).startswith("cuda"):
            gc.collect()
            torch.cuda.empty_cache()
        ref = self.models[setting.model]
        model = ref.module if ref.image_size is None else None
        model = self.bases.get(setting.model) if model is None else model
        if model is None:
            model = ref.load()
            self._check_weights(setting.model, model)
        elif not _is_there(model, setting.device, dtype):
            # The user's own model is neither changed nor moved.
            model = copy.deepcopy(model)
        placed: nn.Module = model.to(device=setting.device, dtype=dtype)
        return placed

    def _check_weights(self, place: int, model: nn.Module) -> None:
        from tokenred.analysis.measure.machine import weights_digest

        found = weights_digest(model)
        if found != self.weights[place]:
            raise CheckpointError(
                f"the weights of {self.models[place].label} are not the planned ones (digest "
                f"{found}, planned {self.weights[place]}): they changed, or differ on this "
                "machine. Start the grid again."
            )

    def _chosen(self, setting: Setting) -> KeptImages | None:
        ref = self.data[setting.data]
        if ref is None:
            return None
        key = (setting.data, setting.model, setting.limit, setting.seed)
        return _kept(self._images, key, partial(self._choose, ref, setting))

    def _choose(self, ref: DataRef, setting: Setting) -> KeptImages:
        from tokenred.data import balanced_subset

        whole = ref.open(self._base(setting))
        self._check_content(setting.data, ref, whole)
        count = len(whole) if setting.limit is None else setting.limit
        # Images that loading processes keep are lost with them.
        room = 0 if self.loaders else self.room // _KEPT
        return KeptImages(whole, balanced_subset(whole, count, setting.seed), room)

    def _check_content(self, place: int, ref: DataRef, data: ImageDataset) -> None:
        """Refuse images that differ from the planned ones on this machine."""
        if ref.dataset is not None or not self.contents or not self.contents[place][1]:
            return
        stamp, planned = self.contents[place]
        if stamp is None or ref.stamp() != stamp:
            found = content_of(data)
            if found != planned:
                raise DataError(
                    f"the images of {ref.label} are not the planned ones (digest {found}, planned "
                    f"{planned}): they changed, or differ on this machine. Start the "
                    "grid again."
                )

    def _describe(self, setting: Setting) -> dict[str, Any]:
        from tokenred.analysis.measure.machine import describe_machine, model_device

        device: Any = setting.device
        if device is None:
            model = next(reversed(self._models.values()), None)
            device = "cpu" if model is None else model_device(model)
        try:
            return {**describe_machine(device), "host": platform.node()}
        except (RuntimeError, AssertionError):  # not of this machine
            return {"device": str(device), "host": platform.node()}


class KeptImages(ImageDataset):
    """Some images of a dataset, each kept as its transformed tensor.

    Args:
        whole: the dataset, with its transform.
        chosen: indices into it, in order.
        room: bytes that may be kept; 0 keeps nothing.
    """

    def __init__(self, whole: ImageDataset, chosen: Sequence[int], room: int) -> None:
        super().__init__(whole.source, whole.labels, whole.classes, whole.name, whole.transform)
        self.labels = tuple(whole.labels[index] for index in chosen)
        self._whole = whole
        self._chosen = tuple(chosen)
        self._room = room
        self._kept: dict[int, Tensor] = {}

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """The image, its label (-1 where it cannot be read) and its index in the whole dataset."""
        place = self._chosen[index]
        if place in self._kept:
            return self._kept[place], self.labels[index], place
        image, label, _ = self._whole[place]
        # Copies of this dataset share what is kept.
        if label != SKIPPED_LABEL and self._have_room(image, len(self._kept) + 1):
            self._kept[place] = image
        return image, label, place

    @property
    def fit(self) -> bool:
        """Whether all images can be kept."""
        return self._have_room(self[0][0], len(self._chosen))

    def _have_room(self, image: Tensor, count: int) -> bool:
        # All images have one size.
        return count * image.numel() * image.element_size() <= self._room

    def name_of(self, index: int) -> str:
        return self._whole.name_of(index)

    def why_unreadable(self, index: int) -> str | None:
        return self._whole.why_unreadable(index)


def _kept(known: OrderedDict[Any, T], key: Any, make: Callable[[], T]) -> T:
    """The value kept under a key, or a new one, kept instead of the oldest."""
    if key not in known:
        while len(known) >= _KEPT:
            known.popitem(last=False)
        known[key] = make()
    known.move_to_end(key)
    return known[key]


def _is_there(model: nn.Module, device: str | None, dtype: torch.dtype | None) -> bool:
    """Whether all of a model is already on a device and of a type."""
    tensors = [*model.parameters(), *model.buffers()]
    return all(
        (device is None or tensor.device == torch.device(device))
        and (dtype is None or tensor.dtype == dtype or not tensor.is_floating_point())
        for tensor in tensors
    )


def _checked(metric: Metric, found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise PartError(
            f"metric {metric.name!r} must return names and values, got {type(found).__name__}."
        )
    return {str(name): plain(_unboxed(value)) for name, value in found.items()}


def _unboxed(value: Any) -> Any:
    """Numbers and arrays of NumPy and PyTorch as Python values."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value
