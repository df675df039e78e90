"""Rows of a store: predictions as small blobs, results as flat records and tidy frames."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

DENSE = "dense"
"""The method of a row of the dense model."""
DONE, FAILED, SKIPPED = "done", "failed", "skipped"

_FIRST = (
    "strategy", "method", "model", "data", "limit", "seed", "dtype", "gmacs", "overhead_gmacs",
    "tokens", "images", "top1", "top5",
)  # fmt: skip
_LAST = (
    "status", "error", "seconds", "attempts", "engine", "fingerprint", "weights", "batch_size",
    "image_size", "compile", "device", "processor", "cores", "threads", "host", "platform",
    "python", "torch", "timm", "tokenred", "commit", "created", "study", "config", "unused",
    "traceback", "key",
)  # fmt: skip
# What is known about every row, whatever is measured; `accuracy` adds the others.
OF_EVERY_ROW = frozenset({*_FIRST, *_LAST, "axes", "packed"}) - {"images", "top1", "top5"}


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions, in the order of the evaluation.

    Attributes:
        index: ``(n,)`` positions of the images in their dataset.
        label, prediction: ``(n,)`` classes.
        rank: ``(n,)`` number of classes that the model ranks above the label; 0 is correct. Of
            classes with equal logits, the first ranks higher.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    rank: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``(n,)`` whether each prediction is correct."""
        return np.equal(self.rank, 0)


Packed = tuple[str, int, bytes, bytes]
"""A digest of the images and labels, their number, and both halves of the predictions: `index` and
`label` (the same for all cells on these images), `prediction` and `rank`."""


def pack_predictions(found: Any) -> Packed:
    """The predictions of a `tokenred.analysis.Evaluation`, ready to store."""
    labels, answers = (
        _pack({name: np.asarray(getattr(found, name), np.int32) for name in names})
        for names in (("index", "label"), ("prediction", "rank"))
    )
    return hashlib.sha256(labels).hexdigest()[:16], len(found.label), labels, answers


def _pack(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)
    return buffer.getvalue()


def unpack(blob: bytes) -> dict[str, NDArray[np.int64]]:
    """The columns of one half."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        return {name: stored[name].astype(np.int64) for name in stored.files}


def record(row: Mapping[str, Any], axes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A row of the store as one flat dictionary, the axes first: its own, or those given.

    A limit or seed on an axis repeats the row's own column; a model is given by its name.
    """
    own = {name: value for name, value in row.items() if name != "axes"}
    shown = row["axes"] if axes is None else axes
    return {name: _hashable(value) for name, value in {**shown, **own, **shown}.items()}


def _hashable(value: Any) -> Any:
    """Sequences of numbers as tuples, which pandas can group by."""
    return tuple(_hashable(v) for v in value) if isinstance(value, list) else value


def extra_columns(records: Iterable[Mapping[str, Any]], axes: Sequence[str]) -> list[str]:
    """The columns of metrics that not every study has, in the order in which they came."""
    known = {*axes, *_FIRST, *_LAST}
    return [n for n in dict.fromkeys(n for row in records for n in row) if n not in known]


def tidy(records: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> pd.DataFrame:
    """One row per result: axes, strategy, settings, cost, metrics, status, provenance."""
    import pandas as pd

    extra = extra_columns(records, axes)
    columns = [*axes, *_FIRST, *extra, *_LAST]
    frame = pd.DataFrame(list(records), columns=list(dict.fromkeys(columns)))
    for name in axes:  # a reference that is no cell must not turn whole numbers into floats
        values = [row.get(name) for row in records]
        if None in values and {type(value) for value in values} == {int, type(None)}:
            frame[name] = pd.array(values, dtype="Int64")
    return frame


def unused_notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines below a table: what changes nothing, and in which strategies of its rows."""
    by_reason: dict[str, dict[str, None]] = {}
    for row in rows:
        told = row.get("unused")  # NaN in a frame with other rows
        for reason in told.split("; ") if isinstance(told, str) and told else ():
            by_reason.setdefault(reason, {})[str(row["strategy"])] = None
    return [
        f"{reason}: {first}{f' and {len(more)} more' if more else ''}."
        for reason, (first, *more) in by_reason.items()
    ]
