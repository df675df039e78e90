"""What is measured in each image, as a frame of means over the images with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor, nn

from tokenred.analysis.measure.inputs import Data, ImageStream, image_stream
from tokenred.analysis.measure.intervals import StreamingMeans
from tokenred.analysis.measure.machine import base_of

__all__ = ["means_over_images"]

_DIFFERENCE = ["difference", "difference_low", "difference_high"]


def means_over_images(
    models: Sequence[nn.Module],
    data: Data,
    rows: Sequence[Mapping[str, Any]],
    measure: Callable[[Tensor], ArrayLike],
    *,
    level: float,
    name: str | None,
    seed: int,
    minus: Mapping[int, int] | None = None,
    **options: Any,
) -> tuple[pd.DataFrame, ImageStream]:
    """Measure all images batch by batch; only sums are kept, so memory does not grow with them.

    Args:
        models: which run, on the same device.
        data: see `tokenred.analysis.evaluate`.
        rows: what the rows of the frame say besides their figures, one for each quantity.
        measure: from images ``(b, channels, height, width)`` to values ``(b, rows)``; NaN where a
            quantity is not defined for an image.
        level: level of the bootstrap intervals.
        name: name of the model; None for the class of the first one's base.
        seed: seed of the image subset and the bootstrap.
        minus: for some rows, by position, the row whose mean is subtracted, paired by image.
        options: of `image_stream`.

    Returns:
        The rows with ``mean``, ``low``, ``high`` and ``images``, ``difference`` and its interval
        with ``minus``, ``model``, ``data`` and ``seed``; and the images that were seen.

    Raises:
        TokenredError: as raised by `image_stream`.
    """
    means = StreamingMeans(len(rows), seed=seed)
    with image_stream(models, data, seed=seed, **options) as stream:
        for images in stream:
            means.add(measure(images))
    frame = pd.DataFrame([dict(row) for row in rows]).assign(**means.figures(level))
    if minus:
        gaps = np.full((len(rows), 3), np.nan)
        gaps[list(minus)] = means.differences(list(minus), list(minus.values()), level).T
        frame[_DIFFERENCE] = gaps
    model = name or type(base_of(models[0])).__name__
    return frame.assign(model=model, data=stream.source, seed=seed), stream
