"""One pass of models over images: what each of them makes of the batches of one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from tokenred.analysis.measure.accuracy.evaluation import ranked
from tokenred.analysis.measure.accuracy.out_of_memory import Portions
from tokenred.analysis.measure.context import autocast, channels_last, measured
from tokenred.core.errors import DataError, InputError
from tokenred.data import SKIPPED_LABEL, ImageDataset

__all__ = ["Batch", "Options", "Share", "run_share"]

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Options:
    """How to evaluate; see `tokenred.analysis.evaluate`."""

    batch_size: int
    workers: int
    limit: int | None
    device: str | torch.device | None
    amp: torch.dtype | None
    channels_last: bool
    progress: bool
    seed: int


@dataclass
class Share:
    """What one process found.

    Attributes:
        rows: by model and number of the batch, rows as `ranked` gives them.
        classes: by model; 0 where it has seen no image.
        skipped: by number of the batch, name and reason of images that could not be read.
        seconds: wall-clock time.
        order: digest of the order in which a loader gave its images.
    """

    rows: dict[str, dict[int, Tensor]]
    classes: dict[str, int]
    skipped: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    seconds: float = 0.0
    order: str = ""


def run_share(
    models: Mapping[str, nn.Module],
    data: ImageDataset | DataLoader[Any],
    stream: Iterable[tuple[int, Batch]],
    total: int | None,
    target: torch.device | None,
    options: Options,
    title: str = "accuracy",
    keep: Callable[[int, Share], None] | None = None,
) -> Share:
    """Run all models on the batches of one process.

    Args:
        models: by name, on the same device.
        data: where the batches come from, to name images that cannot be read.
        stream: the batches (images, labels, indices) with their numbers.
        total: how many images they hold, if that is known.
        target: where to run; None for where the models are.
        options: precision, memory format and progress.
        title: of the bar.
        keep: is told of each batch when all models have seen it.

    Raises:
        DataError: for labels that a model cannot give.
        InputError: for logits of another shape, or NaN among them.
    """
    found = Share({name: {} for name in models}, dict.fromkeys(models, 0))
    portions = {name: Portions() for name in models}
    start = time.perf_counter()
    with ExitStack() as stack:
        for model in models.values():
            place = stack.enter_context(measured(model, target))
        stack.enter_context(channels_last(models.values(), options.channels_last))
        # Not inference mode: what a model caches then could never be trained with.
        stack.enter_context(torch.no_grad())
        stack.enter_context(autocast(place, options.amp))
        # disable=None: quiet where stderr is no terminal.
        quiet = None if options.progress else True
        bar = stack.enter_context(
            tqdm(total=total, desc=title, unit="img", leave=False, disable=quiet)
        )
        for number, (images, labels, indices) in stream:
            good = labels != SKIPPED_LABEL
            if not good.all():
                found.skipped[number] = [_why(data, i) for i in indices[~good].tolist()]
                images, labels, indices = images[good], labels[good], indices[good]
            for name, model in models.items() if len(labels) else ():
                run = _runner(model, place, options.channels_last)
                logits = portions[name](run, images)
                found.classes[name] = _check_labels(labels, logits.shape[1])
                found.rows[name][number] = ranked(logits, labels, indices)
            if keep is not None:
                keep(number, found)
            bar.update(len(good))
    found.seconds = time.perf_counter() - start
    return found


def _runner(model: nn.Module, place: torch.device, nhwc: bool) -> Callable[[Tensor], Tensor]:
    """From images on the CPU to logits on the CPU."""
    weight = next(model.parameters(), None)
    dtype = torch.float32 if weight is None else weight.dtype

    def run(images: Tensor) -> Tensor:
        images = images.to(place, non_blocking=True).to(dtype)
        if nhwc and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        logits = model(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"expected logits ({len(images)}, classes) from the model, got {got}; "
                "evaluate a classifier, with one head."
            )
        logits = logits.cpu().float()
        if torch.isnan(logits).any():
            raise InputError(
                "expected numbers from the model, got NaN; check its weights, and the precision."
            )
        return logits

    return run


def _check_labels(labels: Tensor, classes: int) -> int:
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(
            f"expected labels from 0 to {classes - 1}, as the model has {classes} classes, got "
            f"{int(labels.min())} to {int(labels.max())}; check labels and model."
        )
    return classes


def _why(data: ImageDataset | DataLoader[Any], index: int) -> tuple[str, str]:
    source: Any = data
    if isinstance(data, DataLoader):
        source = data.dataset.dataset if isinstance(data.dataset, Subset) else data.dataset
    if isinstance(source, ImageDataset):
        return source.name_of(index), source.why_unreadable(index) or "unreadable a moment ago"
    return f"image {index}", f"its label is {SKIPPED_LABEL}"
