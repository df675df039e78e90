"""Progress on standard error: a bar on a terminal, otherwise a line every half minute."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_SECONDS = 30.0


class _Lines(tqdm):  # type: ignore[type-arg]
    """Lines for a log: none for short work, otherwise also one at the end."""

    def __init__(self, **options: Any) -> None:
        form = "{desc}: {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}{postfix}]"
        pace = {"delay": _SECONDS, "mininterval": _SECONDS, "maxinterval": 0, "miniters": 1}
        super().__init__(**options | pace | {"bar_format": form, "leave": False})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print a line; also instead of clearing a bar, unless it says the same as the last one."""
        if msg is None or self.n > self.last_print_n:
            print(self, file=self.fp, flush=True)

    @classmethod
    @contextmanager
    def external_write_mode(cls, file: Any = None, nolock: bool = False) -> Iterator[None]:
        """Lines need not make way for others."""
        yield


def progress_bar(
    total: float | None, title: str, unit: str, shown: bool, **options: Any
) -> tqdm[Any]:
    """A bar on a terminal, lines elsewhere, nothing unless ``shown``; options as tqdm's."""
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    kind: type[tqdm[Any]] = tqdm if terminal else _Lines
    return kind(total=total, desc=title, unit=unit, disable=not shown, **options)
