"""Check and convert values according to annotations, or refuse them in one line.

`checked` decorates a function or a dataclass; pydantic reads:

- ``int``: 64-bit integers; no booleans and no floats, not even 8.0.
- ``float``: finite numbers; integers become floats, so that 1 and 1.0 are equal.
- ``bool``: booleans; also 1, 0 and the words yes, no, on, off, true, false.
- ``tuple[…]`` and ``Sequence[…]``: lists, tuples, ranges and arrays become tuples.
- NumPy and PyTorch scalars: the corresponding Python numbers.

Values with other annotations (a class, a tensor, an unresolvable name) are passed through
unchecked, and a default is always accepted.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from dataclasses import InitVar
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate

from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.wording import SEQUENCES, Words, described, shown

__all__ = [
    "Blocks",
    "Count",
    "LaterBlocks",
    "Magnitude",
    "Magnitudes",
    "PartOf",
    "Positive",
    "Probability",
    "Share",
    "Shares",
    "Size",
    "Sizes",
    "ascending",
    "checked",
    "parameters_of",
    "read",
]

C = TypeVar("C", bound=Callable[..., Any])


def ascending(numbers: tuple[int, ...]) -> bool:
    """Whether each number is larger than the one before."""
    return all(a < b for a, b in itertools.pairwise(numbers))


Count = Annotated[int, Ge(0)]
"""A whole number of at least 0."""
Size = Annotated[int, Ge(1)]
"""A whole number of at least 1."""
Magnitude = Annotated[float, Ge(0)]
"""A number of at least 0."""
Positive = Annotated[float, Gt(0)]
"""A number above 0."""
Share = Annotated[float, Gt(0), Le(1)]
"""A number in (0, 1]."""
PartOf = Annotated[float, Gt(0), Lt(1)]
"""A number in (0, 1)."""
Probability = Annotated[float, Ge(0), Le(1)]
"""A number in [0, 1]."""
Blocks = Annotated[
    tuple[Count, ...], MinLen(1), Predicate(ascending), Words("ascending block numbers from 0 on")
]
"""Numbers of blocks, each once."""
LaterBlocks = Annotated[Blocks, Predicate(all), Words("ascending block numbers from 1 on")]
"""The same without the first block."""
Shares = Annotated[tuple[Share, ...], MinLen(1)]
"""Several of `Share`."""
Sizes = Annotated[tuple[Size, ...], MinLen(1)]
"""Several of `Size`."""
Magnitudes = Annotated[tuple[Magnitude, ...], MinLen(1)]
"""Several of `Magnitude`."""


def checked(target: C) -> C:
    """Make a function or a dataclass check its arguments against their annotations.

    Raises:
        ConfigError: by the function, if a value does not match its annotation, or an argument is
            missing or superfluous.
        UnknownNameError: by the function, for an unknown argument.
    """
    if not isinstance(target, type):
        return typing.cast(C, _reading(target))
    setattr(target, "__init__", _reading(target.__init__))  # type: ignore[misc]  # noqa: B010
    return target


def read(annotation: Any, value: Any, what: str) -> Any:
    """Check one value against an annotation.

    Args:
        annotation: such as `Count`, or ``Share | None``.
        value: the value given.
        what: its name in the message, such as ``"batch_size"``.

    Raises:
        ConfigError: with the expected and the given value.
    """
    reader = reader_of(annotation)
    if reader is None:
        return value
    try:
        return reader.validate_python(value)
    # An object that raises anything during the check is not a valid value.
    except Exception:
        expected = described(annotation)
        whole = isinstance(value, float) and value.is_integer() and "whole number" in expected
        hint = f" Write {int(value)}." if whole else ""
        raise ConfigError(f"{what} must be {expected}, got {shown(value)}.{hint}") from None


def parameters_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Names and annotations of the parameters of a function or dataclass.

    ``Any`` if there is no annotation, or its names cannot be resolved.
    """
    function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    names = list(inspect.signature(function).parameters)[isinstance(target, type) :]
    return {name: _annotation(target, name) for name in names}


class _Plan:
    """The argument readers of one function."""

    def __init__(self, target: Callable[..., Any], function: Callable[..., Any]) -> None:
        self.signature = inspect.signature(function)
        self.annotations = parameters_of(target)
        self._kinds = {n: self.signature.parameters[n].kind for n in self.annotations}
        self._defaults = {n: self.signature.parameters[n].default for n in self.annotations}
        # Converted: 1 is 1.0 for a float. A default that its annotation excludes is kept.
        self._changed: dict[str, Any] = {}
        for name, default in self._defaults.items():
            try:
                value = read(self.annotations[name], default, name)
            except ConfigError:
                continue
            if type(value) is not type(default):
                self._changed[name] = value

    def __call__(
        self, owner: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> inspect.BoundArguments:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            names = [n for n in self.annotations if self._kinds[n] is not _VAR_KEYWORD]
            if unknown := [n for n in kwargs if n not in names]:
                raise UnknownNameError.of(f"parameter of {owner}", unknown[0], names) from None
            raise ConfigError(f"{owner}: {error}; it takes {', '.join(names)}.") from None
        given = bound.arguments
        for name, annotation in self.annotations.items():
            if self._kinds[name] in (_VAR_KEYWORD, _VAR_POSITIONAL):
                continue
            if name not in given or given[name] is self._defaults[name]:
                given |= {name: self._changed[name]} if name in self._changed else {}
            else:
                given[name] = read(annotation, given[name], f"{owner}: {name}")
        return bound


_VAR_KEYWORD, _VAR_POSITIONAL = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
_plans: weakref.WeakKeyDictionary[Any, _Plan] = weakref.WeakKeyDictionary()


def _reading(function: Callable[..., Any]) -> Callable[..., Any]:
    is_init = function.__name__ == "__init__"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        bound = _bound(call, is_init, args, kwargs)
        return function(*bound.args, **bound.kwargs)

    return call


def _bound(
    call: Callable[..., Any], is_init: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    owner = type(args[0]) if is_init else call
    if (plan := _plans.get(call)) is None:
        made = [c for c in getattr(owner, "__mro__", ()) if vars(c).get("__init__") is call]
        plan = _plans[call] = _Plan(made[0] if made else call, call)
    return plan(owner.__name__, args, kwargs)


def _annotation(target: Any, name: str) -> Any:
    """The annotation of a parameter, with string annotations resolved."""
    if not isinstance(target, type):
        function = inspect.unwrap(target)
        found = getattr(function, "__annotations__", {}).get(name, Any)
        return _resolved(found, getattr(function, "__globals__", {}), {})
    field = getattr(target, "__dataclass_fields__", {}).get(name)
    if field is None or not getattr(target, "__dataclass_params__").init:  # noqa: B009
        return _annotation(target.__init__, name)  # type: ignore[misc]
    # A subclass has the same fields as its bases.
    fields = ((c, vars(c).get("__dataclass_fields__", {})) for c in target.__mro__)
    owner = [c for c, its in fields if its.get(name) is field][-1]
    module = sys.modules.get(owner.__module__)
    return _resolved(field.type, getattr(module, "__dict__", {}), dict(vars(owner)))


def _resolved(annotation: Any, names: dict[str, Any], own: dict[str, Any]) -> Any:
    try:
        if isinstance(annotation, str):
            annotation = eval(annotation, names, own)
    except Exception:
        return Any
    return annotation.type if isinstance(annotation, InitVar) else annotation


# ---------------------------------------------------------------- from an annotation to a reader

_TRUTH = {"true": True, "yes": True, "on": True, "1": True}
_TRUTH |= {"false": False, "no": False, "off": False, "0": False}
_LIMIT = 1 << 63
_MOST = 1 << 16  # values in a list: a range may be longer than memory
# If several kinds could read a value, the one that changes it least comes first.
_ORDER = (type(None), Literal, str, int, bool, float, list, tuple)


def reader_of(annotation: Any) -> Any:
    """A pydantic ``TypeAdapter``, or None if there is nothing to check."""
    try:
        hash(annotation)
    except TypeError:
        return _new_reader(annotation)
    return _known_reader(annotation)


def _new_reader(annotation: Any) -> Any:
    # Imported late: it takes longer to import than all of tokenred.
    from pydantic import TypeAdapter

    try:
        form = _form(annotation)[1]
        return None if form is Any else TypeAdapter(form)
    except Exception:  # annotations that cannot be checked, such as a bound on a string
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
    """The Python number of a NumPy or PyTorch scalar; other values unchanged."""
    is_scalar = isinstance(value, np.generic | torch.Tensor) and value.ndim == 0
    return value.item() if is_scalar else value


def _real(value: Any) -> Any:
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    # A very large integer has no float, and is too large for the comparison.
    if isinstance(value, int) and (abs(value) >= _LIMIT or int(float(value)) != value):
        raise ValueError("this number does not fit into a float")
    return float(value) + 0.0  # −0 is 0


def _truth(value: Any) -> Any:
    value = _scalar(value)
    if isinstance(value, str):
        return _TRUTH.get(value.strip().casefold(), value)
    return bool(value) if type(value) is int and value in (0, 1) else value


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value.encode()  # a lone surrogate could not be written to a file
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
