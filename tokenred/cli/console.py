"""Where the commands print: a terminal, or a file wide enough for the tables."""

from __future__ import annotations

import os
import sys

from rich.console import Console

__all__ = ["make_console"]

_WIDTH = 140


def make_console() -> Console:
    """A console on standard output; wide where that is no terminal and nobody says otherwise."""
    fixed = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH
    return Console(width=fixed, highlight=False, soft_wrap=False)
