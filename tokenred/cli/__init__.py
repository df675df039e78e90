"""The ``tokenred`` command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: by default the program's own.
    """
    before = signal.getsignal(signal.SIGINT)
    own = threading.current_thread() is threading.main_thread()
    if plain := own and before is signal.default_int_handler:
        # Until the command runs, Ctrl-C ends the program without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from tokenred.cli.app import main as run

        run(arguments)
    finally:
        if plain:
            signal.signal(signal.SIGINT, before)


__all__ = ["main"]
