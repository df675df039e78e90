"""Start interpreters with the same import path, without the working directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NO_PLUGINS = "TOKENRED_NO_PLUGINS"
"""Environment variable with folders, separated as in PATH, that are not searched for plug-ins."""

# The new interpreter's own path is replaced before anything is imported through it.
_START = "import sys; sys.path[:] = sys.argv[1:]; del sys.argv[1:]; from {} import main; main()"


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


def import_path() -> list[str]:
    """``sys.path`` without the working directory, unless the running script is there."""
    main = sys.modules.get("__main__")
    script = None if getattr(main, "__spec__", None) else getattr(main, "__file__", None)
    home = os.path.realpath(os.path.dirname(script)) if script else None
    return [
        os.path.abspath(place)
        for place in sys.path
        if not is_working_folder(place) or (place and os.path.realpath(place) == home)
    ]


def python_running(module: str) -> list[str]:
    """The command that runs ``main`` of a module in a fresh interpreter."""
    # -P omits the working directory; before 3.11 only -I does, which also ignores the environment.
    safe = "-P" if sys.version_info >= (3, 11) else "-I"
    return [sys.executable, safe, "-c", _START.format(module), *import_path()]
