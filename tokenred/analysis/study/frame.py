"""Stored rows as a tidy pandas frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OF_EVERY_ROW", "extra_columns", "record", "tidy"]

_FIRST = (
    "strategy",
    "method",
    "model",
    "data",
    "limit",
    "seed",
    "dtype",
    "gmacs",
    "overhead_gmacs",
    "tokens",
    "images",
    "top1",
    "top5",
)
_LAST = (
    "status",
    "error",
    "seconds",
    "attempts",
    "engine",
    "fingerprint",
    "weights",
    "batch_size",
    "device",
    "processor",
    "cores",
    "threads",
    "host",
    "platform",
    "python",
    "torch",
    "timm",
    "tokenred",
    "commit",
    "created",
    "study",
    "config",
    "traceback",
    "key",
)
# What is known of every row, whatever is measured; `accuracy` gives the others.
OF_EVERY_ROW = frozenset({*_FIRST, *_LAST, "traceback", "axes", "metrics", "machine"}) - {
    "images",
    "top1",
    "top5",
}
_NAMES = {"image_limit": "limit", "git_commit": "commit"}


def record(row: Mapping[str, Any], axes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A row of the store as one flat dictionary, its axes first.

    Args:
        row: as `Store.rows` gives it.
        axes: in place of the row's own.
    """
    nested = ("axes", "metrics", "machine")
    own = {_NAMES.get(name, name): value for name, value in row.items() if name not in nested}
    found = {**own, **row["machine"], **row["metrics"]}
    shown = {name: _shown(v) for name, v in (row["axes"] if axes is None else axes).items()}
    # A limit or seed on an axis says what the row's own column says; a model goes by its name.
    return {**shown, **{name: v for name, v in found.items() if name not in shown}}


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


def _shown(value: Any) -> Any:
    """Rows of numbers as tuples, which pandas can group by."""
    return tuple(_shown(v) for v in value) if isinstance(value, list) else value
