"""Rows of a store: predictions as small blobs, results as flat records and tidy frames."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenred.analysis.study.cell import Packed

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "OF_EVERY_ROW", "Predictions", "extra_columns", "pack", "pack_predictions",
    "record", "tidy", "unpack",
]  # fmt: skip

_FIRST = (
    "strategy", "method", "model", "data", "limit", "seed", "dtype", "gmacs", "overhead_gmacs",
    "tokens", "images", "top1", "top5",
)  # fmt: skip
_LAST = (
    "status", "error", "seconds", "attempts", "engine", "fingerprint", "weights", "batch_size",
    "image_size", "compile", "device", "processor", "cores", "threads", "host", "platform",
    "python", "torch", "timm", "tokenred", "commit", "created", "study", "config", "traceback",
    "key",
)  # fmt: skip
# What is known of every row, whatever is measured; `accuracy` gives the others.
OF_EVERY_ROW = frozenset({*_FIRST, *_LAST, "axes", "metrics", "machine"}) - {
    "images", "top1", "top5",
}  # fmt: skip
_NAMES = {"image_limit": "limit", "git_commit": "commit"}
_NARROW = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)


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
    """Columns of whole numbers as bytes: the narrowest that hold them, compressed."""
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
    limits = (np.iinfo(kind) for kind in _NARROW)
    return values.astype(next(x.dtype for x in limits if x.min <= low and high <= x.max))


def record(row: Mapping[str, Any], axes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A row of the store as one flat dictionary, its axes first.

    Args:
        row: as `Store.rows` gives it.
        axes: in place of the row's own.
    """
    nested = ("axes", "metrics", "machine")
    own = {_NAMES.get(name, name): value for name, value in row.items() if name not in nested}
    found = {**own, **row["machine"], **row["metrics"]}
    shown = dict(row["axes"] if axes is None else axes)
    # A limit or seed on an axis says what the row's own column says; a model goes by its name.
    both = {**shown, **{name: v for name, v in found.items() if name not in shown}}
    return {name: _hashable(value) for name, value in both.items()}


def _hashable(value: Any) -> Any:
    """Rows of numbers as tuples, which pandas can group by."""
    return tuple(_hashable(v) for v in value) if isinstance(value, list) else value


def extra_columns(records: Iterable[Mapping[str, Any]], axes: Sequence[str]) -> list[str]:
    """The columns of metrics that not every study has, in the order in which they came."""
    known = {*axes, *_FIRST, *_LAST}
    return [n for n in dict.fromkeys(n for row in records for n in row) if n not in known]


def tidy(records: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> pd.DataFrame:
    """One row a result: axes, strategy, settings, cost, metrics, status, what produced it.

    Args:
        records: as `record` gives them.
        axes: their names.
    """
    import pandas as pd

    first = [name for name in _FIRST if name not in axes]
    last = [name for name in _LAST if name not in axes]
    columns = [*axes, *first, *extra_columns(records, axes), *last]
    return pd.DataFrame(list(records), columns=columns)
