"""Fresh interpreters that import what this one does, and nothing from the working folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["NO_PLUGINS", "import_path", "is_working_folder", "python_running"]

NO_PLUGINS = "TOKENRED_NO_PLUGINS"
"""The environment variable with folders, joined as in PATH, in which no plug-in is looked for."""

# Whatever stands on the new interpreter's own path goes before anything is imported through it.
_START = "import sys; sys.path[:] = sys.argv[1:]; del sys.argv[1:]; from {} import main; main()"


def is_working_folder(place: str) -> bool:
    """Whether an entry of ``sys.path`` is there for being the working folder, and nothing else.

    Where somebody names it in PYTHONPATH, or tokenred itself lies in it, it may stay.
    """
    if not place:
        return True
    asked = [
        own for own in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(own)
    ]
    root = Path(__file__).parents[2]
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # it was deleted
        return False
    kept = {os.path.realpath(own) for own in (str(root), *asked)}
    return os.path.realpath(place) == here and here not in kept


def import_path() -> list[str]:
    """``sys.path`` without the working folder, unless the running script lies there."""
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
    # -P leaves the working folder out; before 3.11 only -I does, and the environment with it.
    safe = "-P" if sys.version_info >= (3, 11) else "-I"
    return [sys.executable, safe, "-c", _START.format(module), *import_path()]
