"""The errors tokenred raises: each says what was expected, what was given and what to do.

Every class is also a built-in error, so that ``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

# The module is public as `tokenred.errors`.
__all__ = [
    "BackboneError", "CheckpointError", "CheckpointWarning", "ConfigError", "DataError",
    "DataWarning", "ExportError", "InputError", "MissingExtraError", "OutputBusyError",
    "OutputExistsError", "PartError", "PluginWarning", "ScheduleError", "TokenredError",
    "UnknownNameError", "UntrainedPartWarning", "UnusedWarning",
]  # fmt: skip

_LONGEST = 80
_NEAR = 0.65  # of a name to what was written, to be suggested for it
IF_OWN = " If it is your own, import the module that registers it."
"""What an unknown name of a part adds; the command names its own option instead."""


def shown(value: object) -> str:
    """The ``repr`` of a value, shortened if long, even if ``repr`` fails."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__} that cannot be printed"
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def did_you_mean(name: object, known: Iterable[str], near: float = _NEAR) -> str:
    """A sentence with the closest known names, whatever their case; empty if none is close."""
    folded = {each.casefold(): each for each in known}
    written = name[:_LONGEST].casefold() if isinstance(name, str) else ""
    close = difflib.get_close_matches(written, list(folded), n=2, cutoff=near)
    return f" Did you mean {' or '.join(repr(folded[each]) for each in close)}?" if close else ""


class TokenredError(Exception):
    """Base class of all errors that tokenred raises."""


class UnknownNameError(TokenredError, ValueError):
    """An unknown name in a registry, data reader or model list."""

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str], owner: str = "") -> UnknownNameError:
        """Build the error with the closest known names; `owner` is what lacks the name."""
        names = sorted(known, key=str.casefold)
        hint = did_you_mean(name, names)
        told = f"{owner} has no {kind}" if owner else f"unknown {kind}"
        return cls(f"{told} {shown(name)}.{hint} Known: {', '.join(names) or 'none'}.")

    @classmethod
    def of_model(cls, name: str, known: Iterable[str]) -> UnknownNameError:
        """Build the error for a model; there are too many to list them."""
        names, written = sorted(known), name.partition(".")[0].casefold()
        begun = [each for each in names if written and each.startswith(written)]
        near = difflib.get_close_matches(written, begun or names, 3, 0 if begun else _NEAR)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        return cls(
            f"unknown model {shown(name)}.{hint} Known: 'digits', 'cifar10_vit', a .safetensors "
            "path, and timm's models; timm.list_models('*vit*') lists them."
        )


class ConfigError(TokenredError, ValueError):
    """A value that a part or strategy does not accept."""


class PartError(TokenredError, TypeError):
    """An object that is not the expected kind of part, or a part that violates its contract."""


class ScheduleError(TokenredError, ValueError):
    """A layer is asked to remove more tokens than it has."""


class BackboneError(TokenredError, TypeError):
    """A model that no adapter supports, or that lacks what a part needs."""


class ExportError(TokenredError, RuntimeError):
    """A model that cannot be exported, or a graph that differs from the model."""


class InputError(TokenredError, ValueError):
    """Images of the wrong shape, type or content."""


class CheckpointError(TokenredError, ValueError):
    """Weights that do not fit, or a file that is not safe to open."""


class DataError(TokenredError, ValueError):
    """A data source that is empty, unreadable or has an unexpected layout."""


class OutputExistsError(TokenredError, ValueError):
    """An output that exists and would have been overwritten."""


class OutputBusyError(TokenredError, RuntimeError):
    """An output that another process is writing."""


class MissingExtraError(TokenredError, RuntimeError):
    """An optional dependency that is not installed."""


def no_device(device: object, why: str) -> ConfigError:
    """The error for a device that PyTorch does not know or the machine lacks."""
    return ConfigError(
        f"expected a device of this machine, got {str(device)!r} ({why}); omit it for the default."
    )


def optional(module: str, extra: str, purpose: str) -> Any:
    """An optional module, or a `MissingExtraError` with the extra that installs it.

    ``purpose`` says what needs which package: ``"tensorboard=True needs TensorBoard"``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{purpose}: pip install 'tokenred[{extra}]'.") from error


class DataWarning(UserWarning):
    """Files among the images that were skipped."""


class CheckpointWarning(UserWarning):
    """A checkpoint with several sets of weights, one of which was chosen."""


class PluginWarning(UserWarning):
    """A plug-in that could not be loaded and was skipped."""


class UntrainedPartWarning(UserWarning):
    """A learned part whose weights are still random."""


class UnusedWarning(UserWarning):
    """A part or an argument of a strategy that changes nothing."""
