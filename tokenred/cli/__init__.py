"""The ``tokenred`` command."""

from __future__ import annotations

from tokenred.cli.app import main

__all__ = ["main"]
