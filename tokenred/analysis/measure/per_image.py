"""Measure each image, and report means over the images with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tokenred.analysis.measure.inputs import Data, batches, open_for, progress_bar, readable
from tokenred.analysis.measure.intervals import StreamingMeans
from tokenred.analysis.measure.machine import base_of, running, weight_type
from tokenred.core.errors import DataError
from tokenred.data.classes import ClassMap

if TYPE_CHECKING:
    import pandas as pd


def means_over_images(
    models: Sequence[nn.Module],
    data: Data,
    rows: Sequence[Mapping[str, Any]],
    measure: Callable[[Tensor], ArrayLike],
    *,
    title: str,
    level: float,
    name: str | None,
    seed: int,
    split: str | None = None,
    class_map: ClassMap = None,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    progress: bool = True,
    minus: Mapping[int, int] | None = None,
    **loading: Any,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Measure all images batch by batch, with the models in eval mode and without gradients.

    Only sums are kept, so memory does not grow with the number of images. Unreadable ones are
    skipped.

    Args:
        models: the models to run, on the same device; all must use the same preprocessing.
        data, split, class_map, device, amp, progress, loading: see `tokenred.analysis.evaluate`.
        rows: the other columns of the frame, one row for each quantity.
        measure: from images ``(b, channels, height, width)`` to values ``(b, rows)``; NaN where a
            quantity is not defined for an image.
        title: title of the progress bar.
        level, name, seed: see `tokenred.analysis.agreement`.
        minus: for some rows, by position, the row whose mean is subtracted, paired by image.

    Returns:
        The rows with ``mean``, ``low``, ``high`` and ``images``, ``difference`` and its interval
        with ``minus``, ``model``, ``data`` and ``seed``; and notes on the images.

    Raises:
        DataError: if no image could be read.
    """
    base = base_of(models[0])
    if not isinstance(data, DataLoader):
        data = open_for(base, data, split=split, class_map=class_map)
    source, total = batches(data, seed=seed, **loading)
    means, dtype = StreamingMeans(len(rows), seed=seed), weight_type(base)
    seen = skipped = 0
    with (
        running(models, device, amp=amp) as place,
        progress_bar(total, title, "img", progress) as bar,
    ):
        for (images, _, _), bad in readable(source):
            if len(images):
                means.add(measure(images.to(place, non_blocking=True).to(dtype)))
            seen, skipped = seen + len(images), skipped + len(bad)
            bar.update(len(images) + len(bad))
    if not seen:
        raise DataError(
            f"expected images to measure on, got none, and {skipped} that cannot be read. "
            "Check the data."
        )
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in rows]).assign(**means.figures(level))
    if minus:
        gaps = np.full((len(rows), 3), np.nan)
        gaps[list(minus)] = means.differences(list(minus), list(minus.values()), level).T
        frame[["difference", "difference_low", "difference_high"]] = gaps
    frame["model"] = name or type(base).__name__
    frame = frame.assign(data=getattr(data, "name", ""), seed=seed)
    note = f"{seen} images; {level:.0%} bootstrap intervals over them." if seen > 1 else "1 image."
    left_out = (f"{skipped} unreadable images skipped.",) if skipped else ()
    return frame, (note, *left_out)
