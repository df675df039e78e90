"""``tokenred --import FILE|MODULE``: your own parts, registered before a command runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from tokenred.core.errors import ConfigError
from tokenred.core.plugins import NO_PLUGINS
from tokenred.core.provenance import own_line

OPTION = "--import"
_SUFFIX = ".py"


def import_all(given: Sequence[str]) -> None:
    """Import files and modules, so that the command knows what they register.

    A file is found by its path, and may import its neighbours. A module is found as by ``python
    -m``, in the working folder too.

    Raises:
        ConfigError: if something is missing, a file has the name of another module, or an import
            fails (with file, line and error).
    """
    for each in given:
        if each.endswith(_SUFFIX) or os.sep in each:
            _import_file(Path(each).expanduser().resolve(), each)
        else:
            _import_module(each)


def _import_file(path: Path, given: str) -> None:
    if not path.is_file() or path.suffix != _SUFFIX:
        raise ConfigError(f"expected a Python file for {OPTION}, found none at {given}.")
    name = path.stem.replace(".", "_")
    home = _home(name)
    if home is not None and home != str(path):
        raise ConfigError(
            f"{given} has the same name as the module {name!r} ({home}), and one would be "
            "mistaken for the other; rename the file."
        )
    if name in sys.modules:  # named twice
        return
    # At the end, so that the file's neighbours never hide an installed module.
    _add_to_path(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs, because unpickling and inspecting its classes look there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file raises
        del sys.modules[name]
        raise _failed(given, error) from error


def _import_module(name: str) -> None:
    _add_to_path(Path.cwd())
    if _spec(name) is None:
        raise ConfigError(
            f"expected a module or the path of a {_SUFFIX} file for {OPTION}, got {name!r}, which "
            "cannot be found. Install it, or run tokenred from its folder."
        )
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _home(name: str) -> str | None:
    """The file that this name refers to, loaded or not; None if there is none."""
    if name in sys.modules:
        return str(getattr(sys.modules[name], "__file__", None) or "built in")
    spec = _spec(name)
    # A plain folder has no origin, and any module takes precedence over it.
    return None if spec is None or spec.origin is None else str(Path(spec.origin).resolve())


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # in a missing package, or not a name at all
        return None


def _add_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        # For what the user named alone, here and in child processes.
        barred = filter(None, [os.environ.get(NO_PLUGINS), str(folder)])
        os.environ[NO_PLUGINS] = os.pathsep.join(barred)


def _failed(given: str, error: BaseException) -> ConfigError:
    """What went wrong, and in which line of the user's code."""
    if isinstance(error, SyntaxError):
        at, told = f"{error.filename}, line {error.lineno}: ", error.msg
    else:
        line = own_line(error)
        at, told = f"{line}: " if line else "", str(error)
    return ConfigError(
        f"{OPTION} {given} failed: {at}{type(error).__name__}: {told.rstrip('.')}. Fix it; "
        "--traceback shows the calls that led there."
    )
