"""Where the commands print: a terminal, or a file wide enough for the tables."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from rich.console import Console

__all__ = ["claim", "claims", "make_console", "say_written"]

_WIDTH = 140
_claims: ContextVar[ExitStack] = ContextVar("tokenred_claims")


def make_console() -> Console:
    """A console on standard output; wide where that is no terminal and nobody says otherwise.

    Square brackets are text: labels and paths have them. What the terminal cannot show becomes a
    question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    terminal = sys.stdout is not None and sys.stdout.isatty()
    fixed = None if terminal or "COLUMNS" in os.environ else _WIDTH
    return Console(width=fixed, highlight=False, soft_wrap=False, markup=False, emoji=False)


def say_written(console: Console, paths: Path | Iterable[Path]) -> None:
    """Name the files that a command wrote."""
    files = [paths] if isinstance(paths, Path) else paths
    console.print(f"Written: {', '.join(map(str, files))}", soft_wrap=True)


def claim(output: Path) -> None:
    """Hold the lock of an output folder or file until the command ends.

    Raises:
        OutputBusyError: where another process writes there.
    """
    from tokenred.core.lock import output_lock

    _claims.get().enter_context(output_lock(output))


@contextmanager
def claims() -> Iterator[None]:
    """Within the block, which is a command, outputs can be claimed."""
    with ExitStack() as stack:
        token = _claims.set(stack)
        try:
            yield
        finally:
            _claims.reset(token)
