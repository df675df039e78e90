"""Wall-clock and CPU seconds of a block."""

from __future__ import annotations

import time
from typing import Any

Figures = dict[str, Any]


class Clock:
    """Seconds of a block, set when it ends; other work on the machine affects CPU time less."""

    seconds: float
    cpu: float

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = round(time.perf_counter() - self._start[0], 3)
        self.cpu = round(time.process_time() - self._start[1], 3)
