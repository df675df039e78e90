"""From an annotation to what pydantic reads by it."""

from __future__ import annotations

import functools
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch

from tokenred.core.wording import SEQUENCES

__all__ = ["reader_of"]

_TRUTH = {"true": True, "yes": True, "on": True, "1": True}
_TRUTH |= {"false": False, "no": False, "off": False, "0": False}
_LIMIT = 1 << 63
_MOST = 1 << 16  # values in a list: a range may be longer than memory
# Of several kinds that could read a value, the one that changes it least goes first.
_ORDER = (type(None), Literal, str, int, bool, float, list, tuple)


def reader_of(annotation: Any) -> Any:
    """A pydantic ``TypeAdapter``, or None where there is nothing to read."""
    try:
        hash(annotation)
    except TypeError:
        return _new_reader(annotation)
    return _known_reader(annotation)


def _new_reader(annotation: Any) -> Any:
    # Only now: it takes longer to import than all of tokenred.
    from pydantic import TypeAdapter

    try:
        form = _form(annotation)[1]
        return None if form is Any else TypeAdapter(form)
    except Exception:  # what no library can read, such as a bound on a text
        return None


_known_reader = functools.lru_cache(maxsize=512)(_new_reader)


def _form(annotation: Any, constraints: tuple[Any, ...] = (), among: bool = False) -> Any:
    """Which of `_ORDER` is read, and what pydantic gets; ``Any`` for what is passed on unread.

    Args:
        annotation: to be read by.
        constraints: of the ``Annotated`` around it.
        among: whether it is one of several in a union.
    """
    from pydantic import BeforeValidator, Field

    annotation = getattr(annotation, "__value__", annotation)  # type Name = ...
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _form(args[0], (*constraints, *args[1:]), among)
    if origin in (Union, types.UnionType):
        return Union, _union([_form(a, constraints, among=True) for a in args])
    if annotation in (None, type(None)):
        return type(None), None
    if origin is Literal:
        return Literal, Annotated[annotation, BeforeValidator(functools.partial(_choice, args))]
    if origin in SEQUENCES or annotation in SEQUENCES:
        kind: Any = list if list in (origin, annotation) else tuple
        items = [a if a is Ellipsis else _form(a)[1] for a in args] or [Any]
        if kind is tuple and len(items) == 1:
            items.append(Ellipsis)
        # A list of numbers and a tuple of them may mean two things.
        before = functools.partial(_several, kind, not (among and kind is list))
        return kind, Annotated[(kind[tuple(items)], *constraints, BeforeValidator(before))]
    leaves: dict[Any, Any] = {
        str: (Field(strict=True), _text),
        int: (Field(strict=True, ge=-_LIMIT, lt=_LIMIT), _scalar),
        bool: (Field(strict=True), _truth),
        float: (Field(strict=True, allow_inf_nan=False), _real),
    }
    if annotation not in leaves:
        return Any, Any
    field, convert = leaves[annotation]
    return annotation, Annotated[(annotation, field, *constraints, BeforeValidator(convert))]


def _union(forms: list[tuple[Any, Any]]) -> Any:
    from pydantic import Field

    if all(form is Any for _, form in forms):
        return Any
    forms.sort(key=lambda form: _ORDER.index(form[0]) if form[0] in _ORDER else len(_ORDER))
    joined: Any = Union[tuple(form for _, form in forms)]  # noqa: UP007
    several = sum(form is not None for _, form in forms) > 1
    return Annotated[joined, Field(union_mode="left_to_right")] if several else joined


def _scalar(value: Any) -> Any:
    """The Python number of a scalar of NumPy or PyTorch; anything else as it is."""
    is_scalar = isinstance(value, np.generic | torch.Tensor) and value.ndim == 0
    return value.item() if is_scalar else value


def _real(value: Any) -> Any:
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    # A whole number of many digits may be none, and too large for the comparison.
    if isinstance(value, int) and (abs(value) >= _LIMIT or int(float(value)) != value):
        raise ValueError("no float is this number")
    return float(value) + 0.0  # −0 is 0


def _truth(value: Any) -> Any:
    value = _scalar(value)
    if isinstance(value, str):
        return _TRUTH.get(value.strip().casefold(), value)
    return bool(value) if type(value) is int and value in (0, 1) else value


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value.encode()  # half a surrogate pair could not be written down
    return str.__str__(value)


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    # What reads "none" as Python's None means the choice of that name.
    if value is None and None not in choices and "none" in choices:
        return "none"
    return _text(_scalar(value))


def _several(kind: Any, tuples: bool, value: Any) -> Any:
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim > 0 and len(value) <= _MOST:
        value = value.tolist()
    if not isinstance(value, list | range | tuple) or (isinstance(value, tuple) and not tuples):
        raise ValueError("no list")
    if len(value) > _MOST:
        raise ValueError("too long")
    return kind(value)
