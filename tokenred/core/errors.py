"""The errors tokenred raises: each says what was expected, what came and what to do.

Every class is also a built-in error, so that ``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tokenred.core.wording import shown

__all__ = [
    "BackboneError",
    "CheckpointError",
    "CheckpointWarning",
    "ConfigError",
    "DataError",
    "DataWarning",
    "ExportError",
    "InputError",
    "MissingExtraError",
    "OutputBusyError",
    "OutputExistsError",
    "PartError",
    "PluginWarning",
    "ScheduleError",
    "TokenredError",
    "UnknownNameError",
    "UntrainedPartWarning",
]


_LONGEST = 80


class TokenredError(Exception):
    """Base of all errors raised on purpose by tokenred."""


class UnknownNameError(TokenredError, ValueError):
    """A name that no registry, data reader or model list knows."""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
        """Build the message, with the closest known names first."""
        names = sorted(known, key=str.casefold)
        folded = {n.casefold(): n for n in names}
        close: list[str] = []
        if isinstance(name, str):
            written = name[:_LONGEST].casefold()
            close = difflib.get_close_matches(written, list(folded), n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(folded[c]) for c in close)}?" if close else ""
        return cls(f"unknown {kind} {shown(name)}.{hint} Known: {', '.join(names) or 'none'}.")


class ConfigError(TokenredError, ValueError):
    """A value outside what a part or strategy accepts."""


class PartError(TokenredError, TypeError):
    """An object that is not the kind of part asked for, or a part that broke its contract."""


class ScheduleError(TokenredError, ValueError):
    """More tokens to be removed in a layer than there are."""


class BackboneError(TokenredError, TypeError):
    """A model that no adapter knows, or one that lacks what a part needs."""


class ExportError(TokenredError, RuntimeError):
    """A model that does not fit into a graph, or a graph that does not do what the model does."""


class InputError(TokenredError, ValueError):
    """Images of the wrong shape, type or content."""


class CheckpointError(TokenredError, ValueError):
    """Weights that do not fit, or a file that is not safe to open."""


class DataError(TokenredError, ValueError):
    """A data source that is empty, unreadable or laid out unexpectedly."""


class OutputExistsError(TokenredError, ValueError):
    """An output that exists and would have been overwritten."""


class OutputBusyError(TokenredError, RuntimeError):
    """An output that another process is writing."""


class MissingExtraError(TokenredError, RuntimeError):
    """An optional dependency that is not installed."""


class DataWarning(UserWarning):
    """Files among the images that are left out."""


class CheckpointWarning(UserWarning):
    """A checkpoint with several sets of weights, of which one was chosen."""


class PluginWarning(UserWarning):
    """A plug-in that could not be loaded, and was left out."""


class UntrainedPartWarning(UserWarning):
    """A learned part whose weights are still random."""
