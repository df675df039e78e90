"""What a training writes about itself: a CSV row an epoch, TensorBoard where asked for."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenred.core.errors import MissingExtraError
from tokenred.core.files import write_whole

__all__ = ["Log"]


class Log:
    """The log of a run.

    Args:
        folder: ``log.csv`` goes there, and TensorBoard's events.
        tensorboard: whether to write the latter.

    Raises:
        MissingExtraError: without TensorBoard, where it is asked for.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self.path = folder / "log.csv"
        self._events: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError(
                    "TensorBoard's events need it: pip install 'tokenred[train]'."
                ) from error
            self._events = SummaryWriter(str(folder))

    def write(self, rows: Sequence[dict[str, float]]) -> None:
        """Write all rows anew, so that a resumed run has each epoch once."""
        if not rows:
            return
        names = list(dict.fromkeys(name for row in rows for name in row))

        def fill(place: Path) -> None:
            with place.open("w", newline="") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)

        write_whole(self.path, fill)
        if self._events is not None:
            last = rows[-1]
            for name, value in last.items():
                self._events.add_scalar(name, value, int(last["epoch"]))

    def close(self) -> None:
        """Leave nothing unwritten."""
        if self._events is not None:
            self._events.close()
