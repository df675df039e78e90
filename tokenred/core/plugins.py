"""Plug-ins: parts of other packages, found through entry points and loaded when needed.

A package names a module, or a function without arguments, in the group ``tokenred.plugins``::

    [project.entry-points."tokenred.plugins"]
    example = "tokenred_example"

The module registers its parts when it is imported, the function when it is called. Since plug-ins
are found in the environment, worker processes and fresh interpreters see the same ones.
"""

import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType

from tokenred.core.errors import PluginWarning

GROUP = "tokenred.plugins"
"""The group of entry points."""

SWITCH = "TOKENRED_PLUGINS"
"""The environment variable that switches plug-ins off if it is 0."""

NO_PLUGINS = "TOKENRED_NO_PLUGINS"
"""Environment variable with folders, separated as in PATH, that are not searched for plug-ins."""


@dataclass(frozen=True)
class Plugin:
    """One entry point and the result of loading it.

    Attributes:
        package: name and version of the distribution.
        name, value: of the entry point.
        parts: (kind, name) of everything it registered.
        error: why it was skipped, or "".
    """

    package: str
    name: str
    value: str
    parts: tuple[tuple[str, str], ...] = ()
    error: str = ""


@dataclass(eq=False)
class _Journal:
    """What a plug-in has registered so far, and how to undo it."""

    package: str
    parts: list[tuple[str, str]] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)


_JOURNAL: ContextVar[_Journal | None] = ContextVar("tokenred_plugin", default=None)
# Other threads wait; a look-up by a loading plug-in sees what is registered so far.
_LOCK = threading.RLock()
_loaded: tuple[Plugin, ...] | None = None


def is_working_folder(place: str) -> bool:
    """Whether an entry of ``sys.path`` exists only because it is the working directory.

    It is kept if PYTHONPATH names it or it contains tokenred.
    """
    if not place:
        return True
    asked = filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # it was deleted
        return False
    kept = {os.path.realpath(own) for own in (str(Path(__file__).parents[2]), *asked)}
    return os.path.realpath(place) == here and here not in kept


def load_plugins() -> tuple[Plugin, ...]:
    """Load all plug-ins once; later calls return the same result.

    A plug-in that fails is skipped entirely, with a `PluginWarning`; the others stay.
    """
    global _loaded
    with _LOCK:
        if _loaded is not None:
            return _loaded
        _loaded = ()
        try:
            found = () if switched_off() else tuple(_load(*one) for one in _entry_points())
        except BaseException:  # interrupted: the next look-up starts again
            _loaded = None
            raise
        _loaded = found
    for plugin in found:
        if plugin.error:
            warnings.warn(
                f"the plug-in {plugin.name!r} ({plugin.value}) of {plugin.package} is skipped, "
                f"with everything it registers: {plugin.error}. Fix or uninstall it; "
                f"{SWITCH}=0 switches all plug-ins off.",
                PluginWarning,
                stacklevel=2,
            )
    return found


def switched_off() -> bool:
    """Whether the environment switches plug-ins off."""
    return os.environ.get(SWITCH, "").strip().casefold() in {"0", "false", "no", "off"}


def has_plugins() -> bool:
    """Whether there are plug-ins to load."""
    return not switched_off() and bool(_entry_points())


def loading() -> str:
    """The package whose plug-in is being loaded, or ""."""
    journal = _JOURNAL.get()
    return "" if journal is None else journal.package


def note(kind: str, name: str, undo: Callable[[], None]) -> None:
    """Record a registration and how to undo it if the plug-in fails."""
    journal = _JOURNAL.get()
    if journal is not None:
        journal.parts.append((kind, name))
        journal.undo.append(undo)


def _load(plugin: Plugin, entry: EntryPoint) -> Plugin:
    journal = _Journal(plugin.package)
    token = _JOURNAL.set(journal)
    done = False
    try:
        found = entry.load()
        if not isinstance(found, ModuleType):
            found()
        done = True
    except (Exception, SystemExit) as error:  # whatever somebody else's code raises
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return replace(plugin, error=told.removesuffix("."))
    finally:
        _JOURNAL.reset(token)
        for undo in () if done else reversed(journal.undo):
            undo()
    return replace(plugin, parts=tuple(journal.parts))


def _text(distribution: Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, UnicodeError):
        return ""


def _entry_points() -> list[tuple[Plugin, EntryPoint]]:
    """All entry points, sorted, so that the order of ``sys.path`` does not matter."""
    # Package files next to a user's data are not installed packages.
    barred = os.environ.get(NO_PLUGINS, "").split(os.pathsep)
    places = [p for p in sys.path if not is_working_folder(p) and p not in barred]
    found: dict[tuple[str, str], tuple[Plugin, EntryPoint]] = {}
    for distribution in distributions(path=places):
        if GROUP not in _text(distribution):
            continue  # without parsing hundreds of packages
        try:
            entries = distribution.entry_points.select(group=GROUP)
            name, version = distribution.metadata["Name"], distribution.version
        except Exception as error:  # missing or broken metadata
            where = getattr(distribution, "_path", "an unnamed package")
            told = f"the plug-in of {where} cannot be read: {error}"
            warnings.warn(told, PluginWarning, stacklevel=2)
            continue
        for entry in entries:
            plugin = Plugin(f"{name} {version}", entry.name, entry.value)
            # As with imports, the first of two copies on the path counts.
            found.setdefault((str(name), entry.name), (plugin, entry))
    return [found[key] for key in sorted(found)]
