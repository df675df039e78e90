"""Accuracy of a model on labelled images, by one process or by several."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader

from tokenred.analysis.measure.accuracy.evaluation import Evaluation, from_rows
from tokenred.analysis.measure.accuracy.image_pass import Batch, Options, Share, run_share
from tokenred.analysis.measure.accuracy.sharding import Shards, shards
from tokenred.analysis.measure.context import base_of, check_amp, check_device
from tokenred.analysis.measure.inputs import Data, batches, open_for
from tokenred.analysis.measure.machine import weights_digest
from tokenred.core.errors import ConfigError, DataError
from tokenred.data import ImageDataset
from tokenred.data.classes import ClassMap
from tokenred.reduced.model import ReducedViT

__all__ = ["Evaluation", "Kept", "evaluate", "evaluate_together"]


class Kept(Protocol):
    """Batches that outlive an evaluation which is stopped."""

    def restore(self, share: Share) -> int:
        """Add them to a share; the number of the first one that is not among them."""
        ...

    def keep(self, number: int, share: Share) -> None:
        """Take in another one."""
        ...


def evaluate(
    model: nn.Module,
    data: Data,
    *,
    batch_size: int = 64,
    workers: int = 0,
    limit: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    shard: bool | None = None,
    progress: bool = True,
    split: str | None = None,
    class_map: ClassMap = None,
    seed: int = 0,
) -> Evaluation:
    """Accuracy of a model, in eval mode; afterwards the model is in the mode it was in.

    An image that cannot be read is left out and named in ``skipped``. A batch that does not fit
    into memory is redone in halves. Under ``torchrun`` each process takes its share of the batches
    and all of them return the same: what a single process returns.

    Args:
        model: dense or reduced; gives logits ``(b, classes)``.
        data: what `tokenred.data.open_dataset` takes (``"digits"``, a folder, a zip,
            ``"hf:NAME"`` …), an `ImageDataset`, or a loader of (images, labels) or (images, labels,
            indices). All but a loader get the model's own preprocessing.
        batch_size, workers: of the loading, in each process; a loader has its own.
        limit: at most so many images: a fixed, class-balanced choice; of a loader, the first.
        device: where to run; None for where the model is. With several processes, ``"cuda"`` means
            the GPU of each one's local rank.
        amp: ``torch.bfloat16`` or ``torch.float16`` for mixed precision.
        channels_last: keep images and convolutions' weights as NHWC in memory.
        shard: share the images with the other processes of ``torchrun`` or of an initialised
            ``torch.distributed``, all of which then make this call; None for where there are any,
            True to insist on them, False for this process alone.
        progress: show a bar on a terminal.
        split, class_map: see `tokenred.data.open_dataset`.
        seed: of the choice that ``limit`` makes.

    Raises:
        DataError: for data that is empty, unreadable, or of other classes than the model's; or
            that differs between processes.
        InputError: for logits of another shape, or NaN among them.
        ConfigError: for numbers out of range or an unknown device; or processes that differ in
            model or settings.
    """
    options = Options(
        batch_size=batch_size,
        workers=workers,
        limit=limit,
        device=device,
        amp=amp,
        channels_last=channels_last,
        progress=progress,
        seed=seed,
    )
    with shards(shard) as team:
        dataset: ImageDataset | DataLoader[Any] = team.local(
            lambda: (
                data
                if isinstance(data, DataLoader)
                else open_for(base_of(model), data, split=split, class_map=class_map)
            )
        )
        (evaluation,) = _evaluate(team, {"": model}, dataset, options).values()
    return evaluation


def evaluate_together(
    models: Mapping[str, nn.Module],
    data: ImageDataset | DataLoader[Any],
    *,
    batch_size: int = 64,
    workers: int = 0,
    limit: int | None = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    channels_last: bool = False,
    shard: bool | None = None,
    progress: bool = True,
    seed: int = 0,
    kept: Kept | None = None,
) -> dict[str, Evaluation]:
    """Several models on the same batches, so that images are decoded once.

    Args:
        models: by name, on the same device; all want the same preprocessing.
        data: with a transform, or a loader.
        batch_size, workers, limit, device, amp, channels_last, shard, progress, seed: as in
            `evaluate`.
        kept: batches that are done already, and where the others go. Several processes keep none.

    Raises:
        DataError, InputError, ConfigError: as `evaluate`.
    """
    options = Options(
        batch_size=batch_size,
        workers=workers,
        limit=limit,
        device=device,
        amp=amp,
        channels_last=channels_last,
        progress=progress,
        seed=seed,
    )
    with shards(shard) as team:
        return _evaluate(team, models, data, options, kept if team.count == 1 else None)


def _evaluate(
    team: Shards,
    models: Mapping[str, nn.Module],
    data: ImageDataset | DataLoader[Any],
    options: Options,
    kept: Kept | None = None,
) -> dict[str, Evaluation]:
    digest = hashlib.sha256()
    before = Share({name: {} for name in models}, dict.fromkeys(models, 0))
    first = team.rank + (0 if kept is None else kept.restore(before))

    def prepare() -> tuple[Iterator[Batch], int | None, torch.device | None]:
        check_amp(options.amp)
        if not models:
            raise ConfigError("expected at least one model to evaluate, got none.")
        target = team.device(check_device(options.device))
        stream, total = batches(
            data,
            batch_size=options.batch_size,
            workers=options.workers,
            limit=options.limit,
            seed=options.seed,
            share=(first, team.count),
            digest=digest if team.count > 1 else None,
        )
        return stream, total, target

    stream, total, target = team.local(prepare)
    if team.count > 1:
        team.agree(lambda: _identity(models, data, options))
    quiet = replace(options, progress=options.progress and team.rank == 0)
    title = "accuracy" if team.count == 1 else f"accuracy, 1 of {team.count} processes"

    def work() -> Share:
        numbered = ((first + turn * team.count, batch) for turn, batch in enumerate(stream))
        keep = None if kept is None else kept.keep
        found = run_share(models, data, numbered, total, target, quiet, title, keep)
        found.order = digest.hexdigest()
        return found

    found = [*team.gather(work), *([before] if kept else [])]
    if len({share.order for share in found[: team.count]}) > 1:
        raise DataError(
            f"expected the same batches in all {team.count} processes, got different labels or "
            "indices from their loaders; do not shuffle, or seed the loaders alike."
        )
    return {name: _merged(name, found) for name in models}


def _merged(model: str, found: list[Share]) -> Evaluation:
    """All shares of a model in the order of a single process."""
    bad = {number: names for share in found for number, names in share.skipped.items()}
    skipped = tuple(name for number in sorted(bad) for name in bad[number])
    rows = {number: part for share in found for number, part in share.rows[model].items()}
    if not rows:
        first = f"; the first: {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
        raise DataError(
            f"expected images to evaluate on, got none, and {len(skipped)} that cannot be "
            f"read{first}. Check the data."
        )
    ordered = torch.cat([rows[number] for number in sorted(rows)])
    classes = max(share.classes[model] for share in found)
    return from_rows(ordered, classes, skipped, max(share.seconds for share in found))


def _identity(
    models: Mapping[str, nn.Module], data: ImageDataset | DataLoader[Any], options: Options
) -> dict[str, object]:
    """What several processes must have in common, in few words."""
    bases = {id(base_of(model)): base_of(model) for model in models.values()}
    learned = [model.parts for model in models.values() if "parts" in model._modules]
    told: dict[str, object] = {
        "models": {name: _kind(model) for name, model in models.items()},
        "weights": [weights_digest(part) for part in (*bases.values(), *learned)],  # type: ignore[arg-type]
    }
    if isinstance(data, ImageDataset):
        running = hashlib.sha256()
        for index, label in enumerate(data.labels):
            running.update(f"{data.name_of(index)}:{label}\n".encode())
        told["data"] = f"{data.name}, {len(data)} images ({running.hexdigest()[:8]})"
    # Loading and looks are each process's own affair; device and workers may differ.
    for name in ("batch_size", "limit", "seed", "amp", "channels_last"):
        told[name] = getattr(options, name)
    return told


def _kind(model: nn.Module) -> str:
    name = type(model).__name__
    if isinstance(model, ReducedViT):
        return f"{name} of {model.cost().gmacs} GMACs, {model.strategy!r}"
    return name
