"""How many tasks go to a worker at once: few long ones, many short ones."""

from __future__ import annotations

__all__ = ["BatchSize"]

_SECONDS = 1.0
_MOST = 256


class BatchSize:
    """A number of tasks that takes a worker about a second, from what the last ones took."""

    def __init__(self) -> None:
        self.size = 1

    def learn(self, tasks: int, seconds: float) -> None:
        """Say how long a batch took on its worker."""
        fitting = _SECONDS * tasks / max(seconds, 1e-6)
        # At most twice as many at a time, since the next ones may be slower.
        self.size = max(1, min(int(fitting), 2 * self.size, _MOST))
