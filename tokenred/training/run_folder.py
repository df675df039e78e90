"""The files of a training run: the state to resume from, the models, and the log."""

import math
from pathlib import Path
from typing import Any

import torch

from tokenred.core.errors import CheckpointError, ConfigError, OutputExistsError, optional
from tokenred.core.files import check_folder, write_whole

Rows = list[dict[str, float]]
FILES = ("state.pt", "log.csv", "best.safetensors", "last.safetensors")
_FORMAT = "tokenred-training/2"


class RunFolder:
    """The output folder of a training run. Every file is written completely or not at all.

    Attributes:
        state, best, last, log: the files.
    """

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self.path = path
        self.state, self.log, self.best, self.last = (path / name for name in FILES)
        self._board: Any = None
        if tensorboard:
            purpose = "tensorboard=True needs TensorBoard"
            self._board = optional("torch.utils.tensorboard", "train", purpose)
        self._events: Any = None

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder in which the run could not be kept; nothing is written.

        Raises:
            OutputExistsError: if it has another run that may be neither continued nor replaced.
            DataError: if it cannot be made or written to.
        """
        check_folder(self.path)
        old = [name for name in FILES if (self.path / name).exists()]
        if old and not (resume or overwrite):
            raise OutputExistsError(
                f"{self.path} already contains a run ({', '.join(old)}). Pass overwrite=True to "
                "replace it, resume=True to continue it, or choose another folder to keep it."
            )

    def start(self, *, resume: bool, first: bool) -> None:
        """Remove an earlier run, unless it is resumed; the first process also opens the events."""
        for name in () if resume else FILES:
            (self.path / name).unlink(missing_ok=True)  # by another process of this run
        if first and self._board is not None:
            self._events = self._board.SummaryWriter(str(self.path))

    def write_state(self, identity: dict[str, Any], rows: Rows, state: dict[str, Any]) -> None:
        """Write what determines the run, its log, and the trainer's state."""
        content = {"format": _FORMAT, "identity": identity, "rows": rows, **state}
        write_whole(self.state, lambda place: torch.save(content, place))

    def read_state(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Read the state of the run with this identity. Nothing in the file is executed.

        Raises:
            CheckpointError: if the file is damaged or of another kind.
            ConfigError: if it belongs to a different run; the message lists the differences.
        """
        afresh = "Start again in another folder."
        try:
            state = torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception as error:  # A damaged pickle may raise nearly anything.
            raise CheckpointError(
                f"expected a training checkpoint at {self.state}, got "
                f"{type(error).__name__}: {error}. {afresh}"
            ) from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise CheckpointError(f"{self.state} is not a training checkpoint. {afresh}")
        saved, rows = state.get("identity"), state.get("rows")
        if not isinstance(saved, dict) or not isinstance(rows, list):
            raise CheckpointError(f"{self.state} lacks identity or rows. {afresh}")
        if not all(_is_row(row, epoch) for epoch, row in enumerate(rows)):
            raise CheckpointError(f"{self.state} has damaged rows. {afresh}")
        differs = [
            f"{name} {saved.get(name)!r} there, {identity.get(name)!r} now"
            for name in sorted({*map(str, saved), *identity})
            if saved.get(name) != identity.get(name)
        ]
        if differs:
            raise ConfigError(
                f"the run in {self.path} was started differently: {'; '.join(differs)}. Resume "
                "with the original arguments, or choose another folder."
            )
        return state

    def write_log(self, rows: Rows) -> None:
        """Rewrite all rows, so that a resumed run has each epoch once."""
        import pandas as pd

        if not rows:
            return
        table = pd.DataFrame(rows).astype({"epoch": int})
        write_whole(self.log, lambda place: table.to_csv(place, index=False))
        if self._events is not None:
            for name, value in rows[-1].items():
                self._events.add_scalar(name, value, len(rows) - 1)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def _is_row(row: Any, epoch: int) -> bool:
    """Whether this is the log row of an epoch."""
    return (
        isinstance(row, dict)
        and all(isinstance(k, str) and isinstance(v, int | float) for k, v in row.items())
        and {"loss", "top1"} <= row.keys()
        and row.get("epoch") == epoch
        and math.isfinite(row["top1"])
    )
