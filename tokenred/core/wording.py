"""Describe annotations and values in words."""

from __future__ import annotations

import math
import types
from collections import abc
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen

__all__ = ["SEQUENCES", "Words", "described", "shown"]

SEQUENCES = (tuple, list, abc.Sequence)
"""Origins of annotations of several values."""
_LONGEST = 80


class Words(str):
    """In an ``Annotated``: a description of the value."""


def described(annotation: Any, *, many: bool = False) -> str:
    """What an annotation accepts, such as ``"a whole number of at least 0"``.

    Args:
        annotation: of a parameter.
        many: describe several such values.
    """
    return _described(annotation, (), many)


def shown(value: object) -> str:
    """The ``repr`` of a value, shortened if long, even if ``repr`` fails."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _described(annotation: Any, constraints: tuple[Any, ...], many: bool) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if words := [c for c in constraints if isinstance(c, Words)]:
        return str(words[-1])
    if origin is Annotated:
        return _described(args[0], (*constraints, *args[1:]), many)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_described(a, constraints, many) for a in args))
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if annotation in (None, type(None)):
        return "None"
    if annotation is int:
        low = _bound(constraints, Ge, "ge")
        least = "" if low is None else f" of at least {low}"
        return f"whole numbers{least}" if many else f"a whole number{least}"
    if annotation is float:
        return ("finite numbers" if many else "a finite number") + _interval(constraints)
    if annotation is bool:
        return "True or False"
    if annotation is str:
        return "texts" if many else "text"
    if origin in SEQUENCES or annotation in SEQUENCES:
        return ("lists of " if many else "") + _several(args, constraints, many)
    return getattr(annotation, "__name__", str(annotation))


def _several(args: tuple[Any, ...], constraints: tuple[Any, ...], many: bool) -> str:
    if not args:
        return "a list"
    if len(args) == 1 or args[-1] is Ellipsis:
        filled = ", not empty" if _bound(constraints, MinLen, "min_length") else ""
        items = _described(args[0], (), True)
        return f"{items}{filled}" if many else f"a list of {items}{filled}"
    return f"({', '.join(_described(a, (), False) for a in args)})"


def _interval(constraints: tuple[Any, ...]) -> str:
    low, above = _bound(constraints, Ge, "ge"), _bound(constraints, Gt, "gt")
    high, below = _bound(constraints, Le, "le"), _bound(constraints, Lt, "lt")
    if low is above is high is below is None:
        return ""
    left = f"({-math.inf if above is None else above}" if low is None else f"[{low}"
    right = f"{math.inf if below is None else below})" if high is None else f"{high}]"
    return f" in {left}, {right}"


def _bound(constraints: tuple[Any, ...], kind: type, name: str) -> Any:
    return next((getattr(c, name) for c in constraints if isinstance(c, kind)), None)
