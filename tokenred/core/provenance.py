"""Whose code something is, what its author wrote in it, and what it reads."""

from __future__ import annotations

import abc
import dis
import functools
import importlib.metadata
import inspect
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from dataclasses import dataclass
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


class _Bare(abc.ABC):
    """An empty class: everything in it comes from Python."""

    x: int


@dataclass(frozen=True, order=True, unsafe_hash=True)
class _Data:
    """A dataclass with every method that the decorator can generate."""

    x: int = 0


def _maker(value: Any) -> str | None:
    """The name under which a function was compiled; its file name changes when it is pickled."""
    code = getattr(inspect.unwrap(value) if callable(value) else None, "__code__", None)
    if code is None:
        return None
    # Not available in Python 3.10: code without a file then counts as generated.
    name: str = getattr(code, "co_qualname", code.co_name if code.co_filename[0] == "<" else "")
    return name


_OF_PYTHON = frozenset(vars(_Bare))
_OF_DATACLASS = {name: made for name, value in vars(_Data).items() if (made := _maker(value))}


def written_in(cls: type) -> Iterator[tuple[str, Any]]:
    """What the author wrote in the body of a class, by name, in order.

    This excludes what this Python version adds to every class, what the dataclass decorator
    generates, and dunder names that are not methods: those belong to Python or a library.
    """
    generated = _OF_DATACLASS if "__dataclass_fields__" in vars(cls) else {}
    for name, value in sorted(vars(cls).items()):
        special = name.startswith("__") and name.endswith("__")
        method = callable(value) or isinstance(value, property | staticmethod | classmethod)
        if name in _OF_PYTHON or (special and not method):
            continue
        if name not in generated or _maker(value) != generated[name]:
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
