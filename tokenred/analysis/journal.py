"""What a comparison has measured so far, on disk, so that a stopped one goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tokenred.analysis.measure.accuracy import Share
from tokenred.analysis.measure.speed import Benchmark
from tokenred.analysis.sweeps.log import append_result, read_results
from tokenred.core.errors import ConfigError

__all__ = ["Journal"]

_SECONDS = 1.0  # between two writes


class Journal:
    """The speeds, and the answers of all models to each batch of images.

    Args:
        path: of the file; made where there is none.
        identity: of the comparison, as plain values.

    Attributes:
        speeds: None where they were not measured yet.

    Raises:
        ConfigError: for the file of another comparison, with what differs.
        DataError: for a file of another kind.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._fresh: dict[str, Any] = {}
        self._written = time.monotonic()
        rows = read_results(path) if path.exists() else []
        # As JSON has it: tuples are lists.
        mine = json.loads(json.dumps(identity))
        if not rows:
            append_result(path, {"key": "comparison", "status": "done", "is": mine})
        elif rows[0].get("is") != mine:
            theirs = rows[0].get("is") or {}
            differs = [n for n in sorted({*mine, *theirs}) if mine.get(n) != theirs.get(n)]
            raise ConfigError(
                f"the comparison in {path} began otherwise ({', '.join(differs)}). Resume it with "
                "what it began with, or begin anew (--overwrite on the command line)."
            )
        timed = [row["speeds"] for row in rows if "speeds" in row]
        self.speeds = Benchmark.from_dict(timed[-1]) if timed else None
        kept = [row["batches"] for row in rows if "batches" in row]
        self._batches = {int(number): batch for some in kept for number, batch in some.items()}

    def keep_speeds(self, speeds: Benchmark) -> None:
        """Keep the speeds, all at once, since they were measured in turns."""
        append_result(self._path, {"key": "speeds", "status": "done", "speeds": speeds.to_dict()})

    def restore(self, share: Share) -> int:
        """Add what is kept to a share; the number of the first batch that is not."""
        for number, batch in self._batches.items():
            if batch["skipped"]:
                share.skipped[number] = [(name, why) for name, why in batch["skipped"]]
            for model, rows in batch["rows"].items():
                share.rows[model][number] = torch.tensor(rows)
                share.classes[model] = batch["classes"][model]
        return 1 + max(self._batches, default=-1)

    def keep(self, number: int, share: Share) -> None:
        """Keep a batch that all models have seen."""
        rows = {model: found[number] for model, found in share.rows.items() if number in found}
        self._fresh[str(number)] = {
            "rows": {model: found.tolist() for model, found in rows.items()},
            "classes": dict(share.classes),
            "skipped": share.skipped.get(number, []),
        }
        if time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        if self._fresh:
            append_result(self._path, {"key": "b", "status": "done", "batches": self._fresh})
        self._fresh, self._written = {}, time.monotonic()
