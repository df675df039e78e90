"""Predictions as small blobs: the narrowest whole numbers that hold them, compressed."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenred.analysis.study.cell import Packed

__all__ = ["Predictions", "pack", "pack_predictions", "unpack"]


_KINDS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model made of each image; the images in the order of the evaluation.

    Attributes:
        index: ``(n,)`` positions of the images in their dataset.
        label, prediction: ``(n,)`` classes.
        rank: ``(n,)`` how many classes the model puts before the label; 0 is right.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    rank: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(n,)`` whether each prediction is correct."""
        return np.equal(self.rank, 0)


def pack(**columns: ArrayLike) -> bytes:
    """Columns of whole numbers as bytes."""
    buffer = io.BytesIO()
    narrow: dict[str, Any] = {name: _narrow(np.asarray(c)) for name, c in columns.items()}
    np.savez_compressed(buffer, **narrow)
    return buffer.getvalue()


def unpack(blob: bytes) -> dict[str, NDArray[np.int64]]:
    """What `pack` packed."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        return {name: stored[name].astype(np.int64) for name in stored.files}


def pack_predictions(found: Any) -> Packed:
    """The predictions of a `tokenred.analysis.Evaluation`."""
    labels = pack(index=found.index, label=found.label)
    return Packed(
        images=hashlib.sha256(labels).hexdigest()[:16],
        count=len(found.label),
        labels=labels,
        answers=pack(prediction=found.prediction, rank=found.rank),
    )


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    if values.size == 0:
        return values.astype(np.uint8)
    low, high = int(values.min()), int(values.max())
    limits = (np.iinfo(kind) for kind in _KINDS)
    return values.astype(next(x.dtype for x in limits if x.min <= low and high <= x.max))
