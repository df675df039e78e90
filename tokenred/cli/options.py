"""Options: parameters of the library's functions, and groups that commands share.

A command declares its own options; the others are the parameters of the function that it calls,
with that function's names, types, defaults and descriptions.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter, Token, convert
from docstring_parser import parse

from tokenred.cli.absent import refuse_missing, refuse_unreachable, refuse_weights
from tokenred.cli.declared import declared
from tokenred.core.errors import ConfigError, DataError, UnknownNameError, did_you_mean, shown
from tokenred.core.notation import read_assignment
from tokenred.core.values import parameters_of, read
from tokenred.data.places import BUNDLED, CLASS_MAPS, DATA_OF, HUB, check_fits, check_there

if TYPE_CHECKING:
    from torch import nn

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", int, float)

_SCALARS = (bool, int, float, str, Path)
_SPEC = (
    "NAME[:KEY=VALUE,…][@SHARE] or a .toml file{}: gtp:P=4,alpha=0.2; tome@0.65 costs 0.65 of the "
    "dense model's GMACs."
)


def _refuse_recipes(_: Any, given: str | tuple[str, ...] | None) -> None:
    """Refuse files that are missing, and a strategy that is given twice."""
    specs = (given,) if isinstance(given, str) else given or ()
    if twice := [spec for at, spec in enumerate(specs) if spec in specs[:at]]:
        raise ConfigError(f"expected each strategy once, got {twice[0]!r} twice; leave one out.")
    paths = [Path(re.sub(r"(?<=\.toml)@.*", "", spec)) for spec in specs]
    refuse_missing(_, tuple(path for path in paths if path.suffix == ".toml"))


def valid(annotation: Any, option: str) -> Parameter:
    """Refuse values of an option that an annotation excludes, without PyTorch.

    Those of a ``Sequence[…]`` are read one by one.
    """
    several = typing.get_origin(annotation) is Sequence
    annotation = typing.get_args(annotation)[0] if several else without_none(annotation)

    def refuse(_: Any, given: Any) -> None:
        for one in given if several and isinstance(given, tuple) else (given,):
            if one is not None:
                read(annotation, one, option)

    return Parameter(validator=refuse)


def _three(option: str, *, above: float = -math.inf) -> Parameter:
    """Refuse what is not three numbers, of which each is above a bound."""

    def refuse(_: Any, given: str | None) -> None:
        found = numbers(option, given, float, "three numbers r,g,b")
        if found is not None and (len(found) != 3 or min(found) <= above):
            bound = f" above {above:g}" if above > -math.inf else ""
            raise ConfigError(f"expected {option} as three numbers r,g,b{bound}, got {given!r}.")

    return Parameter(validator=refuse)


FILE = Parameter(validator=refuse_missing)
WEIGHTS = Parameter(validator=refuse_weights)
OUTPUT = Parameter(name=["--output", "--out", "-o"])
Overwrite = Annotated[bool, Parameter(help="replace the output of an earlier run.")]
Pictures = Annotated[
    tuple[Path, ...], Parameter(name=OUTPUT.name, help="ending in .png, .pdf or .svg; repeatable.")
]
_STRATEGY = Parameter(name=["--strategy", "-s"], validator=_refuse_recipes)
Strategy = Annotated[str, _STRATEGY, Parameter(help=_SPEC.format(""))]
Strategies = Annotated[tuple[str, ...], _STRATEGY, Parameter(help=_SPEC.format(" (repeat it)"))]
Data = Annotated[
    str | None,
    Parameter(
        help="'digits' (bundled; the default with its model), 'cifar10[:PATH]', an image folder, "
        "a zip or a tar."
    ),
]
ClassMap = Annotated[
    str | None,
    Parameter(
        help="index of each class folder: a .json file {NAME: INDEX, …}, imagenet-1k (folders "
        "named by WNIDs), or folders (their own order)."
    ),
]


def options_of(
    *places: str, leave_out: str = "", about: Mapping[str, str] | None = None, **names: str
) -> Callable[[F], F]:
    """Give a command, as options, the parameters of the functions that it calls.

    Those that the user gave arrive in the command's ``**options``, checked against the functions'
    annotations; for the others, the functions' own defaults apply. A parameter that the command (or
    one of its groups) declares stays the command's own. A parameter whose values cannot be written
    as text, such as a model, is not an option.

    Args:
        places: of functions, as for `declared`; they describe their parameters under ``Args:``.
        leave_out: parameters that are not options, separated by spaces.
        about: descriptions in place of the functions' own, where those speak of Python.
        names: options with other names, as in ``strategies="--strategy -s"``.
    """

    def give(command: F) -> F:
        own = inspect.signature(command, eval_str=True).parameters
        options = {n: p for n, p in own.items() if p.kind is not p.VAR_KEYWORD}
        groups = {n: p for n, p in options.items() if is_dataclass(p.annotation)}
        taken = {*leave_out.split(), *options}
        taken |= {field.name for p in groups.values() for field in fields(p.annotation)}
        for function in map(declared, places):
            described = _described(function) | dict(about or {})
            parameters = inspect.signature(function).parameters
            for name, annotation in parameters_of(function).items():
                readable = _readable(annotation, parameters[name].default)
                if name not in taken and readable is not None:
                    called = names.get(name, f"--{name.replace('_', '-')}").split()
                    told = Parameter(name=called, help=described.get(name))
                    options[name] = parameters[name].replace(
                        kind=inspect.Parameter.KEYWORD_ONLY,
                        annotation=Annotated[readable, told, valid(annotation, called[0])],
                    )
        options = {n: p if n in groups else _with_default(p) for n, p in options.items()}
        signature = inspect.Signature(sorted(options.values(), key=lambda option: option.kind))
        setattr(command, "__signature__", signature)  # noqa: B010
        command.__annotations__ = {n: option.annotation for n, option in options.items()}
        return command

    return give


def without_none(annotation: Any) -> Any:
    """An annotation without None, which cannot be written as an option."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    kept = [each for each in typing.get_args(annotation) if each is not type(None)]
    return typing.Union[tuple(kept)]  # noqa: UP007


def _with_default(option: inspect.Parameter) -> inspect.Parameter:
    """An option as its help shows it; the default itself is left to the function."""
    default, annotation = option.default, option.annotation
    if default is option.empty:
        return option
    if default is True:
        no = Parameter(negative=f"--no-{option.name.replace('_', '-')}")
        return option.replace(annotation=Annotated[annotation, no])
    several = default if isinstance(default, tuple) else (default,)
    text = ", ".join(str(one) for one in several if one is not None and one is not False)
    numeric = _leaves(annotation) <= {int, float}
    about = Parameter(show_default=text or False, converter=_read_numbers if numeric else None)
    return option.replace(default=None, annotation=Annotated[annotation | None, about])


def _leaves(annotation: Any) -> set[Any]:
    """The types that an annotation is made of, without None."""
    inner = typing.get_args(annotation)
    inner = inner[:1] if typing.get_origin(annotation) is Annotated else inner
    return set[Any]().union(*map(_leaves, inner)) if inner else {annotation} - {type(None), ...}


def _read_numbers(kind: Any, tokens: Sequence[Token]) -> Any:
    if typing.get_origin(kind) is tuple:
        tokens = [token.evolve(value=one) for token in tokens for one in token.value.split(",")]
    # cyclopts would round 1.5.
    broken = [token.value for token in tokens if "." in token.value]
    if broken and _leaves(kind) == {int}:
        raise ValueError(f"expected a whole number, got {broken[0]}.")
    return convert(kind, tokens)


def given_to(place: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that the function at a place takes."""
    taken = inspect.signature(declared(place)).parameters
    return {name: value for name, value in options.items() if name in taken}


def _described(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says about each parameter; several may share a line, or another's words."""
    found = {}
    for each in parse(inspect.getdoc(function) or "").params:
        text = " ".join((each.description or "").replace("``", "`").split())
        # None cannot be written as an option.
        text = text.replace("None for", "by default").replace("None if", "omit it if")
        other = re.match(r"(?:as in|see) `([\w.]+)`", text)
        home, _, whose = other[1].rpartition(".") if other else ("", "", "")
        theirs = _described(declared(f"{home or 'tokenred.analysis'}:{whose}")) if whose else {}
        for name in map(str.strip, each.arg_name.split(",")):
            found[name] = theirs.get(name, text)
    return found


def _readable(annotation: Any, default: Any) -> Any:
    """The part of an annotation that can be written as text; None if there is none."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(default, bool):
        return bool
    if annotation is Any:
        return str
    if annotation in _SCALARS or origin is Literal:
        return annotation
    if origin is Annotated:
        return _readable(inner[0], default)
    if origin in (typing.Union, types.UnionType):
        found = [one for member in inner if (one := _readable(member, default)) is not None]
        if len(found) > 1:
            found = [str if typing.get_origin(one) is Literal else one for one in found]
        plain = [one for one in found if one in _SCALARS] or found
        # "no" among texts is text. Everything can be read as text, so it comes last.
        plain = [one for one in plain if one is not bool or str not in plain]
        plain.sort(key=lambda one: one in (str, Path))
        return typing.Union[tuple(plain)] if plain else None  # noqa: UP007
    if origin is tuple and Ellipsis not in inner:
        return annotation
    if not (inspect.isclass(origin) and issubclass(origin, Collection)):
        return None
    one = None if issubclass(origin, Mapping) else _readable(inner[0], None)
    return None if one is None else tuple[one, ...]  # type: ignore[valid-type]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model and its weights.

    Attributes:
        model: 'digits' or 'cifar10_vit' (bundled), a timm name, or a .safetensors file; by default
            the bundled one of the data.
        checkpoint: weights for a timm name, in place of the published ones.
        use_ema: for a training checkpoint, use the averaged weights rather than the raw ones.
        random_weights: untrained weights, for measuring speed or trying things out.
        mean: three numbers R,G,B, for a model that records none.
        std: likewise.
    """

    model: str | None = None
    checkpoint: Annotated[Path | None, WEIGHTS] = None
    use_ema: Annotated[bool | None, Parameter(negative="--no-use-ema")] = None
    random_weights: Annotated[bool, Parameter(show_default=False)] = False
    mean: Annotated[str | None, _three("--mean")] = None
    std: Annotated[str | None, _three("--std", above=0)] = None

    @property
    def name(self) -> str:
        """As `tokenred.models.load_model` takes it."""
        return self.model or "digits"

    @property
    def title(self) -> str:
        """For titles and tables, as a grid calls it."""
        from tokenred.analysis.study.refs import read_model

        given = {"spec": self.name} | ({"checkpoint": self.checkpoint} if self.checkpoint else {})
        return read_model(given).label + " (random weights)" * self.random_weights

    def refuse_unreachable(self) -> None:
        """Refuse published weights that cannot be fetched.

        Raises:
            CheckpointError: if there is no network, and they are in no cache.
        """
        if self.name.startswith(HUB) or not (self.checkpoint or self.random_weights):
            refuse_unreachable(self.name)

    def load(self) -> nn.Module:
        """The model.

        Raises:
            TokenredError: as `tokenred.models.load_model` raises them.
        """
        # timm takes a while to import, and a finished grid does not need it.
        from tokenred.models import load_model

        return load_model(
            self.name,
            checkpoint=self.checkpoint,
            pretrained=False if self.random_weights else None,
            mean=numbers("--mean", self.mean, float, "three numbers r,g,b"),
            std=numbers("--std", self.std, float, "three numbers r,g,b"),
            use_ema=self.use_ema,
        )


def model_and_data(
    model: ModelOptions, data: str | None, split: str | None = None, class_map: Any = None
) -> tuple[ModelOptions, str]:
    """The model and the data to run it on; a bundled model and its data stand for each other.

    Raises:
        ConfigError: if the user has to name the other one, or the data has classes of its own.
        DataError: if there is nothing at the path of the data, or the data has no such split.
    """
    name, data = model_for(model.model, data)
    try:
        check_there(data)
        check_fits(data, split, class_map)
    except DataError as error:
        raise DataError(f"--data: {error}") from error
    return replace(model, model=name), data


def model_for(model: Any, data: Any) -> tuple[Any, Any]:
    """The same for names alone.

    Raises:
        ConfigError: if the user has to name the other one.
    """
    if model is None:
        kind = "digits" if data is None else str(data).partition(":")[0]
        if kind not in BUNDLED:
            raise ConfigError(
                f"expected --model for the data {shown(data)}: the one that was trained for it."
            )
        return BUNDLED[kind], data or kind
    data = data or DATA_OF.get(str(model).casefold())
    if data is None:
        raise ConfigError(
            f"expected --data for the model {shown(model)}: a folder, zip or tar of images of its "
            f"classes.{did_you_mean(str(model), DATA_OF)}"
        )
    return model, data


def read_class_map(text: str | None) -> dict[str, int] | str | None:
    """The value of ``--class-map``, for `tokenred.data.open_dataset`.

    Raises:
        UnknownNameError: for a name that is none.
        DataError: for a file that cannot be read as names and numbers.
    """
    if text in (None, *CLASS_MAPS):
        return text
    if not text.endswith(".json"):
        raise UnknownNameError.of("class map", text, (*CLASS_MAPS, "a .json file"))
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"cannot read the class map {text}: {reason(error)}; check the file."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f'expected {{"NAME": INDEX, …}} in {text}, got {shown(found)}.')
    return found


def reason(error: Exception) -> object:
    """Why a file cannot be read, without its path if the system says why."""
    return getattr(error, "strerror", None) or error


def assignments(texts: Iterable[str], option: str, form: str = "KEY=VALUE") -> dict[str, Any]:
    """Names and values from several ``KEY=VALUE``, or texts of another ``form``.

    Raises:
        ConfigError: for text of another form.
    """
    return dict(read_assignment(text, option, form) for text in texts)


def read_size(text: str) -> int | tuple[int, int]:
    """A side, or height and width, of images.

    Raises:
        ConfigError: for text of another form.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"expected --image-size as a side or HEIGHTxWIDTH, got {text!r}.")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def numbers(option: str, text: str | None, kind: type[N], example: str) -> tuple[N, ...] | None:
    """Numbers separated by commas; None if nothing was given.

    Raises:
        ConfigError: for text of another form; the message has the option and the example.
    """
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"expected {option} as {example}, got {text!r}.") from None
