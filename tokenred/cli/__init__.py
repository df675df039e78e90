"""The ``tokenred`` command."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with its exit code."""
    from tokenred.cli.app import app

    app(prog_name="tokenred")
