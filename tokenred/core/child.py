"""What of the working directory may be imported."""

from __future__ import annotations

import os
from pathlib import Path

NO_PLUGINS = "TOKENRED_NO_PLUGINS"
"""Environment variable with folders, separated as in PATH, that are not searched for plug-ins."""


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
