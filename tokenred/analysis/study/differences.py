"""Paired differences between the rows of a store, each computed once."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tokenred.analysis.difference import difference_columns
from tokenred.analysis.study.store import Store
from tokenred.core.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from tokenred.analysis.measure.intervals import Interval

__all__ = ["Differences"]


class Differences:
    """Looks up what a store kept, and computes the rest.

    Args:
        store: with the predictions.
        level: level of the intervals.

    Attributes:
        fresh: what was computed, by key and reference, for `Store.keep_comparisons`.
    """

    def __init__(self, store: Store, level: float) -> None:
        self._store = store
        self._level = level
        self._kept = store.comparisons(level)
        self.fresh: dict[tuple[str, str], Interval] = {}

    def __call__(self, key: str, reference: str) -> dict[str, float]:
        """The columns of `difference_columns`; none where no images are shared.

        Args:
            key: of a row.
            reference: key of what it is compared with.
        """
        pair = (key, reference)
        if pair not in self._kept:
            try:
                self.fresh[pair] = self._store.compare(key, reference, self._level)
            except (InputError, UnknownNameError):  # one failed, or kept no predictions
                return {}
            self._kept[pair] = asdict(self.fresh[pair])
        return difference_columns(self._kept[pair])
