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

import functools
import inspect
import itertools
import sys
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import InitVar
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate

from tokenred.core.errors import ConfigError, UnknownNameError, shown
from tokenred.core.reading import Words, reader_of

C = TypeVar("C", bound=Callable[..., Any])


def _ascending(numbers: tuple[int, ...]) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))


Count = Annotated[int, Ge(0)]
Size = Annotated[int, Ge(1)]
Magnitude = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Inches = Annotated[float, Gt(0), Le(100)]
"""The width or height of a figure."""
Share = Annotated[float, Gt(0), Le(1)]
PartOf = Annotated[float, Gt(0), Lt(1)]
Probability = Annotated[float, Ge(0), Le(1)]
Blocks = Annotated[
    tuple[Count, ...], MinLen(1), Predicate(_ascending), Words("ascending block numbers from 0 on")
]
"""Numbers of blocks, each once."""
LaterBlocks = Annotated[Blocks, Predicate(all), Words("ascending block numbers from 1 on")]
"""The same without the first block."""
Shares = Annotated[tuple[Share, ...], MinLen(1)]
Sizes = Annotated[tuple[Size, ...], MinLen(1)]
Magnitudes = Annotated[tuple[Magnitude, ...], MinLen(1)]
Aggregate = Literal["max", "mean"]
"""Over the heads of an attention map."""
Compile = bool | Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Whether to compile, or the mode of ``torch.compile``."""
Dtype = Literal[
    "float32", "float64", "bfloat16", "float16", "amp:bfloat16", "amp:float16"
]  # fmt: skip
"""Of weights and images; with ``amp:``, of mixed precision."""
ImageSize = Size | tuple[Size, Size]
"""In pixels: a side, or height and width."""
EngineName = Literal["auto", "plain", "tiled", "two_calls", "one_pass", "triton"]
"""How attention is computed, see `tokenred.attention.pick_engine`."""


SETTING_TYPES: dict[str, Any] = {
    "limit": Size | None, "seed": Count, "budget": PartOf | None, "batch_size": Size,
    "threads": Size | None, "device": str | None, "dtype": Dtype | None,
    "image_size": ImageSize | None, "compile": Compile, "attention": EngineName,
}  # fmt: skip
"""What a strategy runs on, by the names of a grid's axes."""


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
    reader, expected = reader_of(annotation)
    if reader is None:
        return value
    try:
        return reader.validate_python(value)
    # An object that raises anything during the check is not a valid value.
    except Exception:
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


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class _Arguments:
    """How the arguments of one function are read."""

    def __init__(self, target: Callable[..., Any], function: Callable[..., Any]) -> None:
        self.signature = inspect.signature(function)
        every = self.signature.parameters
        single = {n: a for n, a in parameters_of(target).items() if every[n].kind not in _VARIADIC}
        self.annotations = single
        self.defaults = {name: every[name].default for name in single}
        # 1 is 1.0 for a float. A default that its annotation excludes is kept.
        self.converted: dict[str, Any] = {}
        for name, default in self.defaults.items():
            try:
                value = read(single[name], default, name)
            except ConfigError:
                continue
            if type(value) is not type(default):
                self.converted[name] = value

    def bind(self, owner: Any, args: Any, kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            names = list(self.annotations)
            if unknown := [n for n in kwargs if n not in names]:
                raise unknown_parameter(owner, unknown[0], names) from None
            raise ConfigError(f"{owner.__name__}: {error}; it takes {', '.join(names)}.") from None
        given = bound.arguments
        for name, annotation in self.annotations.items():
            if name in given and given[name] is not self.defaults[name]:
                given[name] = read(annotation, given[name], f"{owner.__name__}: {name}")
            elif name in self.converted:
                given[name] = self.converted[name]
        return bound


def unknown_parameter(owner: Any, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a parameter that a class or function does not have."""
    holders = [vars(c) for c in getattr(owner, "__mro__", ()) if name in vars(c)]
    value = holders[0][name] if len(holders) == 1 else None  # one of the contract has several
    if isinstance(value, bool | int | float | str | tuple):
        return UnknownNameError(
            f"{owner.__name__}: {name} is no parameter, since it has no annotation. Write "
            f"{name}: {type(value).__name__} = {shown(value)}."
        )
    return UnknownNameError.of("parameter", name, known, owner.__name__)


# Not in the function's closure, which travels with it to other processes.
_known: weakref.WeakKeyDictionary[Any, _Arguments] = weakref.WeakKeyDictionary()


def _reading(function: Callable[..., Any]) -> Callable[..., Any]:
    is_init = function.__name__ == "__init__"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # The command line and figures have no use for PyTorch, which takes seconds to import.
        if (torch := sys.modules.get("torch")) and torch.compiler.is_compiling():
            return function(*args, **kwargs)
        owner = type(args[0]) if is_init else call
        bound = _arguments_of(call, owner).bind(owner, args, kwargs)
        return function(*bound.args, **bound.kwargs)

    return call


def _arguments_of(call: Callable[..., Any], owner: Any) -> _Arguments:
    if call not in _known:
        made = [c for c in getattr(owner, "__mro__", ()) if vars(c).get("__init__") is call]
        _known[call] = _Arguments(made[0] if made else call, call)
    return _known[call]


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
