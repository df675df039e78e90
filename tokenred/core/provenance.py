"""Whose code something is, what its author wrote in it, and what it reads."""

import dis
import functools
import importlib.metadata
import site
import sys
import sysconfig
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenred._version import __version__


@functools.lru_cache(maxsize=1024)
def is_installed(module: str) -> bool:
    """Whether a module belongs to Python, tokenred or an installed package."""
    if module == "__main__":
        return False  # anything defined there belongs to the user
    top = module.partition(".")[0]
    if top == "tokenred":
        return True
    # Modules of compiled packages may have no file.
    files = (getattr(sys.modules.get(name), "__file__", None) for name in (module, top))
    file = next(filter(None, files), None)
    if file is None:
        return top in sys.builtin_module_names
    return any(Path(file).resolve().is_relative_to(place) for place in _places())


def own_line(error: BaseException) -> str:
    """The last line of the user's code that an error went through: ``parts.py, line 3``, or ""."""
    frames = traceback.walk_tb(error.__traceback__)
    own = [
        f"{Path(frame.f_code.co_filename).name}, line {line}"
        for frame, line in frames
        if not is_installed(str(frame.f_globals.get("__name__", "builtins")))
    ]
    return own[-1] if own else ""


@functools.cache
def _places() -> tuple[Path, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(Path(path).resolve() for path in {*paths, site.getusersitepackages()})


@functools.lru_cache(maxsize=256)
def release_of(module: str) -> str:
    """The version of the package that a module belongs to; "" if unknown."""
    top = module.partition(".")[0]
    if top == "tokenred":
        return __version__
    if top in sys.stdlib_module_names:
        return ""  # compiled code depends on the Python version anyway
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(top), "__version__", ""))


def written_in(cls: type) -> Iterator[tuple[str, Any]]:
    """What the author, or a decorator, wrote into the body of a class, by name, in order.

    This excludes dunder names that are not methods: those belong to Python or a library.
    """
    for name, value in sorted(vars(cls).items()):
        special = name.startswith("__") and name.endswith("__")
        method = callable(value) or isinstance(value, property | staticmethod | classmethod)
        if name != "_abc_impl" and (method or not special):
            yield name, value


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The globals that a function and those inside it read, and all names that they use."""
    loads = (step for step in dis.get_instructions(code) if step.opname.startswith("LOAD_"))
    reads = {str(s.argval) for s in loads if "GLOBAL" in s.opname or s.opname == "LOAD_NAME"}
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            reads |= names_in(inner)[0]
            names |= names_in(inner)[1]
    return frozenset(reads), frozenset(names)
