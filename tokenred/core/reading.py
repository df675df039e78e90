"""From an annotation to what reads its values, and to the words for them."""

import functools
import math
import types
from collections import abc
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BeforeValidator, Field, TypeAdapter


class Words(str):
    """In an ``Annotated``: a description of the value."""


def reader_of(annotation: Any) -> tuple[Any, str]:
    """A pydantic ``TypeAdapter``, or None if there is nothing to check, and the words for it."""
    try:
        hash(annotation)
    except TypeError:
        return _new_reader(annotation)
    return _known_reader(annotation)


def _new_reader(annotation: Any) -> tuple[Any, str]:
    try:
        form = _form(annotation)
        return (None if form.read_by is Any else TypeAdapter(form.read_by)), form.words
    except Exception:  # annotations that cannot be checked, such as a bound on a string
        return None, ""


_known_reader = functools.lru_cache(maxsize=512)(_new_reader)


class _Form(NamedTuple):
    """How values of an annotation are read.

    Attributes:
        kind: which of `_ORDER` they are.
        read_by: what pydantic gets; ``Any`` for what is passed on unread.
        words: what is accepted, such as ``"a whole number of at least 0"``.
        many: the words for several such values.
    """

    kind: Any
    read_by: Any
    words: str
    many: str


# If several kinds could read a value, the one that changes it least comes first.
_ORDER = (type(None), Literal, str, int, bool, float, list, tuple)
_SEQUENCES = (tuple, list, abc.Sequence)
_LIMIT = 1 << 63


def _form(annotation: Any, constraints: tuple[Any, ...] = (), among: bool = False) -> _Form:
    """The form of an annotation.

    Args:
        annotation: to be read by.
        constraints: of the ``Annotated`` around it.
        among: whether it is one of several in a union.
    """
    annotation = getattr(annotation, "__value__", annotation)  # type Name = ...
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        form = _form(args[0], (*constraints, *args[1:]), among)
    elif origin in (Union, types.UnionType):
        form = _union([_form(a, constraints, among=True) for a in args])
    elif annotation in (None, type(None)):
        form = _Form(type(None), None, "None", "None")
    elif origin is Literal:
        words = f"one of {', '.join(map(repr, args))}"
        before = BeforeValidator(functools.partial(_choice, args))
        form = _Form(Literal, Annotated[annotation, before], words, words)
    elif origin in _SEQUENCES or annotation in _SEQUENCES:
        form = _sequence(list if list in (origin, annotation) else tuple, args, constraints, among)
    else:
        form = _leaf(annotation, constraints)
    given = [str(c) for c in constraints if isinstance(c, Words)]
    return form._replace(words=given[-1], many=given[-1]) if given else form


def _leaf(annotation: Any, constraints: tuple[Any, ...]) -> _Form:
    low = _bound(constraints, Ge, "ge")
    least = "" if low is None else f" of at least {low}"
    within = _interval(constraints)
    leaves: dict[Any, Any] = {
        str: (Field(strict=True), _text, "text", "texts"),
        int: (Field(strict=True, ge=-_LIMIT, lt=_LIMIT), _scalar,
              f"a whole number{least}", f"whole numbers{least}"),
        bool: (Field(strict=True), _truth, "True or False", "True or False"),
        float: (Field(strict=True, allow_inf_nan=False), _real,
                f"a finite number{within}", f"finite numbers{within}"),
    }  # fmt: skip
    if annotation not in leaves:
        name = getattr(annotation, "__name__", str(annotation))
        return _Form(Any, Any, name, name)
    field, convert, words, many = leaves[annotation]
    read_by: Any = Annotated[(annotation, field, *constraints, BeforeValidator(convert))]
    return _Form(annotation, read_by, words, many)


def _sequence(kind: Any, args: tuple[Any, ...], constraints: tuple[Any, ...], among: bool) -> _Form:
    items = [_form(a) for a in args if a is not Ellipsis]
    types_of_items = [item.read_by for item in items] or [Any]
    if kind is tuple and (Ellipsis in args or len(types_of_items) == 1):
        types_of_items.append(Ellipsis)
    # A list of numbers and a tuple of them may mean two things.
    before = BeforeValidator(functools.partial(_several, kind, not (among and kind is list)))
    read_by: Any = Annotated[(kind[tuple(types_of_items)], *constraints, before)]
    if not items:
        words, many = "a list", "lists"
    elif len(items) == 1:
        filled = ", not empty" if _bound(constraints, MinLen, "min_length") else ""
        words = f"a list of {items[0].many}{filled}"
        many = f"lists of {items[0].many}{filled}"
    else:
        words = f"({', '.join(item.words for item in items)})"
        many = f"lists of {words}"
    return _Form(kind, read_by, words, many)


def _union(forms: list[_Form]) -> _Form:
    words = " or ".join(dict.fromkeys(form.words for form in forms))
    many = " or ".join(dict.fromkeys(form.many for form in forms))
    if all(form.read_by is Any for form in forms):
        return _Form(Union, Any, words, many)
    forms.sort(key=lambda form: _ORDER.index(form.kind) if form.kind in _ORDER else len(_ORDER))
    joined: Any = Union[tuple(form.read_by for form in forms)]  # noqa: UP007
    if sum(form.read_by is not None for form in forms) > 1:
        joined = Annotated[joined, Field(union_mode="left_to_right")]
    return _Form(Union, joined, words, many)


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


# ---------------------------------------------------------------- from what is given to Python's

_TRUTH = {"true": True, "yes": True, "on": True, "1": True}
_TRUTH |= {"false": False, "no": False, "off": False, "0": False}
_MOST = 1 << 16  # values in a list: a range may be longer than memory


def _dimensions(value: Any) -> int:
    """Those of an array or a tensor, known without importing NumPy or PyTorch; else −1."""
    return getattr(value, "ndim", -1) if hasattr(value, "dtype") else -1


def _scalar(value: Any) -> Any:
    """The Python number of a NumPy or PyTorch scalar; other values unchanged."""
    return value.item() if _dimensions(value) == 0 else value


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
    if _dimensions(value) > 0 and len(value) <= _MOST:
        value = value.tolist()
    if not isinstance(value, list | range | tuple) or (isinstance(value, tuple) and not tuples):
        raise ValueError("no list")
    if len(value) > _MOST:
        raise ValueError("too long")
    return kind(value)
