"""A worker: it keeps models and images loaded, and runs one cell after another."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tokenred.analysis.measure.accuracy import Evaluation, evaluate_together
from tokenred.analysis.measure.machine import (
    channels_last,
    cpu_threads,
    measured,
    model_device,
    weights_digest,
)
from tokenred.analysis.study.cell import Cell, Outcome, Setting, failure, outcome, plain
from tokenred.analysis.study.facts import content_of
from tokenred.analysis.study.metrics import (
    Context,
    Metric,
    accuracy,
    check_names,
    evaluation_options,
)
from tokenred.analysis.study.plan import cost_columns, machine_of
from tokenred.analysis.study.refs import DataRef, ModelRef, precision_of
from tokenred.analysis.study.rows import DONE
from tokenred.attention import pick_engine
from tokenred.core.errors import CheckpointError, DataError, PartError
from tokenred.data import SKIPPED_LABEL, ImageDataset, balanced_subset
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import Spec

T = TypeVar("T")
_KEPT = 2
# Cells that share a pass over images that do not fit in memory; a kill loses at most these.
_TOGETHER = 16
_NOT_PLANNED = (
    "are not the planned ones (digest {}, planned {}): they changed, or differ on this machine. "
    "Start the grid again."
)


@dataclass
class Runner:
    """Runs cells. It is pickled to a worker, and loads there what it needs."""

    settings: Sequence[Setting]  # by the place that a cell names
    planned: Mapping[Any, tuple[str | None, str]]  # stamp and digest of each model and data
    metrics: tuple[Metric, ...]
    axes: tuple[str, ...] = ()  # whose names no metric may give
    channels_last: bool = False
    raising: bool = False  # what a cell raises, rather than put it into the outcome
    loaders: int = 0  # processes that load images
    room: int = 0  # bytes of images that are kept between cells
    reference: ModelRef | None = None  # what timings are taken against; None for the own model
    # What does not travel:
    loaded: Mapping[ModelRef, nn.Module] = field(default_factory=dict)
    _models: dict[Any, nn.Module] = field(default_factory=dict)
    _images: dict[Any, KeptImages] = field(default_factory=dict)
    _compiled: bool = False

    def __getstate__(self) -> dict[str, Any]:
        here = ("loaded", "_models", "_images")
        return {name: {} if name in here else value for name, value in vars(self).items()}

    def __call__(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """Run cells, each to one outcome, in order. If one raises, the error is in its outcome."""
        places = groupby(enumerate(cells), lambda cell: (cell[0] // _TOGETHER, cell[1].place))
        for _, group in places:
            some = [cell for _, cell in group]
            evaluated = self._evaluate(some)
            for cell in some:
                yield self._run(cell, *evaluated.get(cell.key, (None, 0.0)))

    def _run(self, cell: Cell, evaluation: Evaluation | None, before: float) -> Outcome:
        setting, start = self.settings[cell.place], time.perf_counter() - before
        with cpu_threads(setting.threads):
            try:
                with torch.random.fork_rng(devices=[]):
                    found = self._measure(cell, setting, evaluation)
            except Exception as error:
                if self.raising:
                    raise
                found = failure(cell.key, error)
            device: Any = setting.device
            if device is None and self._models:
                device = model_device(next(reversed(self._models.values())))
            machine = machine_of(device or "cpu")
        return {**found, **machine, "seconds": time.perf_counter() - start}

    def _evaluate(self, cells: Sequence[Cell]) -> dict[str, tuple[Evaluation, float]]:
        """Evaluations and seconds of cells of a setting, in one pass over images that are not kept.

        Empty if one of them cannot be evaluated: each alone will say whose fault it is.
        """
        setting, start = self.settings[cells[0].place], time.perf_counter()
        if len(cells) < 2 or all(metric.function is not accuracy for metric in self.metrics):
            return {}
        try:
            data = self._chosen(setting)
            if data is None or data.fit:
                return {}
            with cpu_threads(setting.threads), torch.random.fork_rng(devices=[]), torch.no_grad():
                models = {cell.key: self._model(cell) for cell in cells}
                options = evaluation_options(self._context(setting))
                found = evaluate_together(models, data, **options)
        except Exception:
            return {}
        seconds = (time.perf_counter() - start) / len(cells)
        return {key: (each, seconds) for key, each in found.items()}

    def _context(self, setting: Setting) -> Context:
        return Context(
            batch_size=setting.batch_size, workers=self.loaders, seed=setting.seed,
            amp=precision_of(setting.dtype)[1], compile=setting.compile,
            channels_last=self.channels_last,
        )  # fmt: skip

    def _measure(self, cell: Cell, setting: Setting, evaluation: Evaluation | None) -> Outcome:
        model, context = self._model(cell), self._context(setting)
        context.evaluation = evaluation
        found = cost_columns(model.cost())
        if self.reference is not None:
            context.dense = self._base(replace(setting, model=self.reference))
        data = self._chosen(setting)
        self._compiled |= bool(setting.compile)
        both = [model] if context.dense is None else [model, context.dense]
        with measured(model, None), channels_last(both, self.channels_last), torch.no_grad():
            taken = set(self.axes)
            for metric in self.metrics:
                values = _checked(metric, metric.function(model, data, context))
                check_names(metric.name, values, taken)
                taken |= values.keys()
                found |= values
        return outcome(cell.key, DONE, packed=context.packed, **found)

    def _model(self, cell: Cell) -> ReducedViT:
        """The model with a strategy, and with the learned parts of a reduced one if they fit."""
        setting = self.settings[cell.place]
        base = self._base(setting)
        # Parts with weights begin with the same ones in every worker.
        torch.manual_seed(setting.seed)
        assert cell.strategy is not None
        if not isinstance(base, ReducedViT):
            spec = Spec(cell.key, cell.key, cell.strategy)
            return wrap(base, spec, engine=setting.attention)
        if hasattr(base, "stands_for"):
            return base  # a baseline, as it is
        reduced = base.with_strategy(cell.strategy)
        if setting.attention != "auto":
            reduced.engines = pick_engine(setting.attention)
        return reduced

    def _base(self, setting: Setting) -> nn.Module:
        dtype, _ = precision_of(setting.dtype)
        key = (setting.model, dtype, setting.device)
        return _kept(self._models, key, partial(self._load, setting, dtype))

    def _load(self, setting: Setting, dtype: torch.dtype | None) -> nn.Module:
        # Leave nothing behind that affects the next model.
        if self._compiled:
            torch.compiler.reset()
            self._compiled = False
        if str(setting.device).startswith("cuda"):
            gc.collect()
            torch.cuda.empty_cache()
        ref = setting.model
        model = self.loaded.get(ref)
        if model is None:
            model, (_, planned) = ref.load(), self.planned[ref]
            if (found := weights_digest(model)) != planned:
                raise CheckpointError(
                    f"the weights of {ref.label} {_NOT_PLANNED.format(found, planned)}"
                )
        elif (first := next(model.parameters())).to(setting.device, dtype) is not first:
            # The user's own model is neither changed nor moved.
            model = copy.deepcopy(model)
        placed: nn.Module = model.to(device=setting.device, dtype=dtype)
        return placed

    def _chosen(self, setting: Setting) -> KeptImages | None:
        if setting.data is None:
            return None
        key = (setting.data, setting.model, setting.limit, setting.seed)
        return _kept(self._images, key, partial(self._choose, setting.data, setting))

    def _choose(self, ref: DataRef, setting: Setting) -> KeptImages:
        whole = ref.open(self._base(setting))
        stamp, planned = self.planned.get(ref, (None, ""))
        known = not planned or ref.dataset is not None or (stamp and ref.stamp() == stamp)
        if not known and (found := content_of(whole)) != planned:
            raise DataError(f"the images of {ref.label} {_NOT_PLANNED.format(found, planned)}")
        count = len(whole) if setting.limit is None else setting.limit
        # Images that loading processes keep are lost with them.
        room = 0 if self.loaders else self.room // _KEPT
        return KeptImages(whole, balanced_subset(whole, count, setting.seed), room)


class KeptImages(ImageDataset):
    """Chosen images of a dataset, kept as transformed tensors as far as there is room (bytes)."""

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


def _kept(known: dict[Any, T], key: Any, make: Callable[[], T]) -> T:
    """The value kept under a key, or a new one, kept instead of the oldest."""
    if key not in known:
        for oldest in list(known)[: 1 - _KEPT]:
            del known[oldest]
        known[key] = make()
    known[key] = known.pop(key)
    return known[key]


def _checked(metric: Metric, found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise PartError(
            f"metric {metric.name!r} must return names and values, got {type(found).__name__}."
        )
    return {str(name): plain(value) for name, value in found.items()}
