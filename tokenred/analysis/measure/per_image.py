"""Measure each image, and report means over the images with their intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor, nn

from tokenred.analysis.measure.inputs import Data, reading
from tokenred.analysis.measure.intervals import StreamingMeans
from tokenred.analysis.measure.machine import base_of, name_of, weight_type


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
    minus: Mapping[int, int] | None = None,
    **options: Any,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Measure all images batch by batch, with the models in eval mode and without gradients.

    Only sums are kept, so memory does not grow with the number of images. Unreadable ones are
    skipped.

    Args:
        models: the models to run, on the same device; all must use the same preprocessing.
        data, options: see `tokenred.analysis.evaluate`.
        rows: the other columns of the frame, one row for each quantity.
        measure: from images ``(b, channels, height, width)`` to values ``(b, rows)``; NaN where a
            quantity is not defined for an image.
        title: title of the progress bar.
        minus: for some rows, by position, the row whose mean is subtracted, paired by image.

    Returns:
        The rows with ``mean``, ``low``, ``high`` and ``images``, ``difference`` and its interval
        with ``minus``, ``model``, ``data`` and ``seed``; and notes on the images.

    Raises:
        DataError: if no image could be read.
    """
    base, seen = base_of(models[0]), 0
    means = StreamingMeans(len(rows), seed=seed)
    with reading(models, data, title, seed=seed, **options) as read:
        for images, _, _ in read.batches:
            means.add(measure(images.to(read.device, non_blocking=True).to(weight_type(base))))
            seen += len(images)
    frame = pd.DataFrame([dict(row) for row in rows]).assign(**means.figures(level))
    if minus:
        gaps = np.full((len(rows), 3), np.nan)
        gaps[list(minus)] = means.differences(list(minus), list(minus.values()), level).T
        frame[["difference", "difference_low", "difference_high"]] = gaps
    frame["model"] = name or name_of(base)
    frame = frame.assign(data=read.name, seed=seed)
    note = f"{seen} images; {level:.0%} bootstrap intervals over them." if seen > 1 else "1 image."
    skipped = len(read.skipped)
    left_out = (f"{skipped} unreadable images skipped.",) if skipped else ()
    return frame, (note, *left_out)
