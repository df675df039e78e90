"""What can go wrong with a study besides its cells."""

from __future__ import annotations

from tokenred.core.errors import ConfigError, TokenredError

__all__ = ["EngineError", "MetricNameError", "StoreError", "StudyInterruptedError"]


class StoreError(TokenredError, RuntimeError):
    """A store that cannot be opened, read, written, or that another grid is writing to."""


class EngineError(TokenredError, RuntimeError):
    """Workers that cannot be started, or an engine that broke down."""


class MetricNameError(ConfigError):
    """A metric that gives a value by a name which says something else in a row."""


class StudyInterruptedError(KeyboardInterrupt):
    """The user stopped a grid. What was finished is stored; the message says how to go on."""
