"""Batches of readable images on the models' device, for measurements that look inside models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from tokenred.analysis.measure.context import autocast, check_amp, check_device, measured
from tokenred.analysis.measure.inputs import batches
from tokenred.core.errors import DataError
from tokenred.data import SKIPPED_LABEL, ImageDataset

__all__ = ["ImageStream", "image_stream"]


@dataclass(eq=False)
class ImageStream:
    """Iterate it once for the images.

    Attributes:
        count: images given so far.
        skipped: images that could not be read so far.
    """

    _batches: Iterator[Tensor]
    count: int = 0
    skipped: int = 0

    def __iter__(self) -> Iterator[Tensor]:
        """Batches ``(b, channels, height, width)``.

        Raises:
            DataError: at the end, where no image could be read.
        """
        for images in self._batches:
            self.count += len(images)
            yield images
        if not self.count:
            raise DataError(
                f"expected images to look at, got none, and {self.skipped} that cannot be read. "
                "Check the data."
            )


@contextmanager
def image_stream(
    models: Iterable[nn.Module],
    data: ImageDataset | DataLoader[Any],
    *,
    batch_size: int,
    workers: int,
    limit: int | None,
    device: str | torch.device | None,
    amp: torch.dtype | None,
    seed: int,
    progress: bool,
    title: str,
) -> Iterator[ImageStream]:
    """The models in eval mode on the device, no gradients, and the images that they are to see.

    Afterwards the models are as they were. An image that cannot be read is left out.

    Args:
        models: on the same device; all want the same preprocessing.
        data: with a transform, or a loader.
        batch_size, workers, limit, device, amp, seed, progress: see `tokenred.analysis.evaluate`.
        title: of the bar.

    Raises:
        ConfigError: for numbers out of range or an unknown device.
    """
    check_amp(amp)
    target = check_device(device)
    source, total = batches(data, batch_size=batch_size, workers=workers, limit=limit, seed=seed)
    several = list(models)
    with ExitStack() as stack:
        for model in several:
            place = stack.enter_context(measured(model, target))
        # Not inference mode: what a model caches then could never be trained with.
        stack.enter_context(torch.no_grad())
        stack.enter_context(autocast(place, amp))
        bar = stack.enter_context(
            tqdm(
                total=total, desc=title, unit="img", leave=False, disable=None if progress else True
            )
        )
        weight = next(several[0].parameters(), None)
        dtype = torch.float32 if weight is None else weight.dtype

        def readable() -> Iterator[Tensor]:
            for images, labels, _ in source:
                good = labels != SKIPPED_LABEL
                stream.skipped += int((~good).sum())
                if good.any():
                    images = images if good.all() else images[good]  # what is pinned stays so
                    yield images.to(place, non_blocking=True).to(dtype)
                bar.update(len(good))

        stream = ImageStream(readable())
        yield stream
