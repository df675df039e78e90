"""Ctrl-C and SIGTERM: what is finished is kept, and the user is told how to go on."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["exit_code", "how_to_go_on", "terminable"]

_RESUME = "--resume"


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM ends the program as Ctrl-C does: outputs are closed first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> NoReturn:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(stop: KeyboardInterrupt) -> int:
    """As a shell has it: 128 and the number of the signal."""
    terminated = isinstance(stop.__cause__ or stop, _TerminatedError)
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def how_to_go_on(command: Any, arguments: Sequence[str]) -> str:
    """A line for whoever stopped a command.

    Args:
        command: as click has it.
        arguments: of the whole command line.
    """
    if not any(_RESUME in option.opts for option in getattr(command, "params", ())):
        return "stopped; nothing was written."
    again = [*arguments, *([] if _RESUME in arguments else [_RESUME])]
    again = [word for word in again if word != "--overwrite"]
    return f"stopped; what is finished is kept. Go on with: {shlex.join(['tokenred', *again])}"
