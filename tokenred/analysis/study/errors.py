"""What can go wrong with a study besides its cells."""

from __future__ import annotations

from tokenred.core.errors import TokenredError

__all__ = ["EngineError", "StoreError", "StudyInterruptedError"]


class StoreError(TokenredError, RuntimeError):
    """A store that cannot be opened, read, written, or that another grid is writing to."""


class EngineError(TokenredError, RuntimeError):
    """Workers that cannot be started, or an engine that broke down."""


class StudyInterruptedError(KeyboardInterrupt):
    """The user stopped a grid. What was finished is stored; the message says how to go on."""
