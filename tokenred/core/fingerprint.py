"""What code a user-defined part runs, as a digest: an edited part never meets its old results."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["digest", "source_of"]

# Made by dataclass from the fields, which the configuration holds already.
_GENERATED = frozenset(
    {
        "__init__",
        "__repr__",
        "__eq__",
        "__hash__",
        "__setattr__",
        "__delattr__",
        "__replace__",
        "__match_args__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__dict__",
        "__weakref__",
        "__module__",
        "__doc__",
        "__firstlineno__",
        "__static_attributes__",
        "__parameters__",
        "__abstractmethods__",
        "_abc_impl",
        "__qualname__",
    }
)


def digest(text: str) -> str:
    """16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_of(cls: type) -> str:
    """The source of a class outside tokenred and of what it uses from its package; else ``""``.

    Follows functions, classes and plain constants that the methods name, in other modules of the
    same package too, so that an edited helper counts as an edit of the part. Where no source is to
    be had, the compiled code stands in.
    """
    seen: set[int] = set()
    own = [c for c in cls.__mro__ if not _is_library(c.__module__)]
    return "\n".join(text for c in own for text in _of_class(c, seen))


def _is_library(module: str) -> bool:
    return module.split(".")[0] in {"tokenred", "builtins", "torch", "typing", "abc", "dataclasses"}


def _of_class(cls: type, seen: set[int]) -> Iterator[str]:
    if id(cls) in seen:
        return
    seen.add(id(cls))
    yield f"class {cls.__qualname__}"
    for name, value in sorted(vars(cls).items()):
        if name not in _GENERATED:
            yield f"{name}:"
            yield from _of_value(value, cls.__module__, seen)


def _of_value(value: Any, module: str, seen: set[int]) -> Iterator[str]:
    if isinstance(value, property):
        for accessor in (value.fget, value.fset):
            if accessor is not None:
                yield from _of_value(accessor, module, seen)
    elif isinstance(value, staticmethod | classmethod):
        yield from _of_value(value.__func__, module, seen)
    elif isinstance(value, functools.partial):
        yield repr((value.args, value.keywords))
        yield from _of_value(value.func, module, seen)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value, seen)
    elif isinstance(wrapped := getattr(value, "__wrapped__", None), types.FunctionType):
        yield from _of_function(wrapped, seen)  # cached, for one
    elif isinstance(value, type) and not _is_library(value.__module__):
        yield from _of_class(value, seen)
    elif isinstance(value, bool | int | float | complex | str | bytes | tuple | list | dict | None):
        yield repr(value)


def _of_function(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    if id(function) in seen or _is_library(function.__module__ or ""):
        return
    seen.add(id(function))
    try:
        yield inspect.getsource(function)
    except (OSError, TypeError):  # typed in at a prompt, or made by exec
        yield _code_text(function.__code__)
    yield repr((function.__defaults__, function.__kwdefaults__))
    # A decorator of somebody else's names nothing of ours; what it wraps does.
    inner = inspect.unwrap(function)
    names = _names(inner.__code__)
    for name in sorted(names):
        if name in inner.__globals__:
            yield from _of_named(name, inner.__globals__[name], inner.__module__, names, seen)


def _of_named(name: str, value: Any, module: str, names: set[str], seen: set[int]) -> Iterator[str]:
    """What a function calls by a name, where it is of the function's own package."""
    if isinstance(value, types.ModuleType):
        if _same_package(value.__name__, module):
            for inner in sorted(names & vars(value).keys()):
                yield from _of_named(f"{name}.{inner}", vars(value)[inner], module, set(), seen)
    elif _same_package(getattr(value, "__module__", module), module):
        yield f"{name}:"
        yield from _of_value(value, module, seen)


def _same_package(one: str | None, other: str) -> bool:
    return one is not None and one.split(".")[0] == other.split(".")[0]


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*inner)


def _code_text(code: types.CodeType) -> str:
    constants = [
        _code_text(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts
    ]
    return "\n".join([code.co_code.hex(), *constants, *code.co_names])
