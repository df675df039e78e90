"""Strategies, parts, axes and values that cannot be, refused before PyTorch is imported."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenred.cli.absent import refuse_models, refuse_store
from tokenred.cli.declared import declared, registered
from tokenred.cli.options import read_size, without_none
from tokenred.core.errors import (
    IF_OWN,
    ConfigError,
    TokenredError,
    UnknownNameError,
    did_you_mean,
    optional,
)
from tokenred.core.files import read_toml
from tokenred.core.notation import (
    TRUTH,
    check_amount,
    check_table,
    read_arguments,
    read_spec,
    split_arguments,
)
from tokenred.core.plugins import has_plugins
from tokenred.core.registry import KINDS
from tokenred.core.values import SETTING_TYPES, parameters_of, read

_NO_ARGUMENTS = {"self", "selector"}
_RAW = ("base", "model", "data", "dtype", "compile", "attention", "device")
_NO_RECIPES = ("dense", "base", "none")
_STRATEGY = "tokenred.strategies.strategy:Strategy.__init__"
_GRID = "tokenred.analysis:Grid"
_PACKAGE = Path(__file__).parents[1]
ENGINES = ("serial", "processes", "ray")  # of a grid
_METRIC = re.compile(r'^@register_metric\("(\w+)".*\ndef (\w+)', re.MULTILINE)
_OF_A_CELL = 3  # parameters of a metric that are no options: model, data, context


def refuse_unknown(given: Mapping[str, Any]) -> None:
    """Refuse strategies, parts, models and axes that cannot be, as far as that is known.

    Args:
        given: the options of a command, or what a study file says instead.

    Raises:
        ConfigError: for an argument that cannot be read, or a share that is not one.
        UnknownNameError: with the closest names.
    """
    axes = axes_of(given)
    _refuse_parts(given, axes)
    engine = given.get("engine")
    if isinstance(engine, str) and engine not in ENGINES:
        raise UnknownNameError.of("engine", engine, ENGINES)
    if engine == "ray" and find_spec("ray") is None:
        optional("ray", "ray", "the engine 'ray' needs Ray (engine='processes' does not)")
    if "metrics" in given and not has_plugins():
        _refuse_metrics(given["metrics"])
    refuse_models(given, axes.get("model", ()))
    if isinstance(store := given.get("store"), str | Path):
        refuse_store(Path(store).expanduser())
    if axes and not has_plugins():
        _refuse_unknown_axes(axes)
    # Other options are checked where they are declared; what a study file says is not.
    types = {"dtype": SETTING_TYPES["dtype"]}
    if "axes" in given:
        types = parameters_of(declared(_GRID)) | parameters_of(declared(f"{_GRID}.run"))
        types |= SETTING_TYPES
    for name in types.keys() & given.keys():
        if given[name] is not None:
            option = f"--{name}" if "axis" in given else name
            read(without_none(types[name]), given[name], option)
    if "study" not in given and given.get("invalid") != "skip":
        for base in axes.get("base", [given.get("base") or "gtp"]):
            if isinstance(base, str):
                _refuse_values(base, axes)


def refuse_budgets(specs: Iterable[str], why: str) -> None:
    """Refuse strategies with budgets of their own, where the command sets the budget."""
    for spec in specs:
        if "@" in spec:
            raise ConfigError(f"{spec!r} has its own budget, {why}.")


def refuse_settings(place: str, given: Mapping[str, Any], options: Collection[str]) -> None:
    """Refuse settings that the fields of a class exclude.

    Args:
        place: of the class, as for `declared`.
        given: values by name.
        options: the names that are options of their own; others are given by --set.
    """
    known = parameters_of(declared(place))
    for name, value in given.items():
        if name not in known:
            raise UnknownNameError.of("setting", name, known)
        option = f"--{name.replace('_', '-')}" if name in options else f"--set {name}"
        read(known[name], value, option)


def axes_of(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The axes of options, and those and the cells of a study file; only lists of values."""
    axes = given.get("axes") or {}
    found = {name: values for name, values in axes.items() if isinstance(values, list)}
    for name, values in found.items():
        if not values:
            raise ConfigError(f"axis {name!r}: expected at least one value, got none.")
    for cell in given.get("cells") or ():
        for name, value in cell.items():
            found[name] = [*found.get(name, ()), value]
    return found | read_axes(given.get("axis") or ())


def read_axes(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Axes from ``NAME=VALUE,…``; repeating a name adds values."""
    found: dict[str, list[Any]] = {}
    values: list[Any]
    for written in texts:
        name, _, text = (part.strip() for part in written.partition("="))
        if not name or not text:
            raise ConfigError(f"expected --axis NAME=VALUE,VALUE, got {written!r}.")
        if name == "base":
            values = _strategies_in(text)
        elif name == "image_size":
            values = [
                None if s.strip() == "none" else read_size(s.strip()) for s in text.split(",")
            ]
        elif name in _RAW:
            values = [value.strip() for value in text.split(",")]
        else:
            values = read_arguments(f"values=[{text}]", written)["values"]
        found.setdefault(name, []).extend(values)
    return found


def _strategies_in(text: str) -> list[str]:
    """Strategies separated by commas, as their arguments are: those have a = in front."""
    found = list[str]()
    for piece in split_arguments(text):
        if found and "=" in re.split("[:@]", piece)[0]:
            found[-1] += f",{piece}"
        else:
            found.append(piece.strip())
    return found


def _refuse_parts(given: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> None:
    """Refuse strategies and parts, in options and on axes."""
    specs = list[Any]()
    for option in ("strategy", "base", "against"):
        text = given.get(option) or ()
        specs += [text] if isinstance(text, str) else text
    if given.get("budget") and "base" not in given:
        refuse_budgets(given.get("strategy") or (), "got --budget as well; leave one of them out")
    parts = [(name, value) for name, values in axes.items() for value in values]
    for spec in (*specs, *axes.get("base", ())):
        if isinstance(spec, str):
            parts += _parts_of(spec.strip())
    if "builder" in given:
        name, _, rest = given["builder"].partition(":")
        parts.append(("graph", {"name": name} | read_arguments(rest, given["builder"])))
    for kind, part in parts:
        for each in part if isinstance(part, list) else [part]:
            if kind in KINDS:
                _refuse_part(kind, each)


def _refuse_metrics(given: Iterable[Any]) -> None:
    """Refuse unknown metrics and options of metrics."""
    text = (_PACKAGE / "analysis/study/metrics.py").read_text(encoding="utf-8")
    known = dict(_METRIC.findall(text))
    for metric in given:
        asked = metric if isinstance(metric, dict) else {"name": metric}
        if not isinstance(name := asked.get("name"), str):
            continue
        if name.casefold() not in known:
            raise UnknownNameError.of("metric", name, known)
        function = declared(f"tokenred.analysis.study.metrics:{known[name.casefold()]}")
        options = list(parameters_of(function))[_OF_A_CELL:]
        for option in asked.keys() - {"name", *options}:
            raise UnknownNameError.of("option", option, options, f"metric {name!r}")


def _refuse_values(base: str, axes: Mapping[str, list[Any]]) -> None:
    """Refuse values that an argument of a recipe cannot have."""
    recipe = re.split("[:@]", base)[0].strip().casefold()
    of_grid = parameters_of(declared(_GRID)) | SETTING_TYPES
    place = registered(KINDS["strategy"].folder).get(recipe)
    known = parameters_of(declared(place)) if place else {}
    for name, values in axes.items():
        kind, _, parameter = name.rpartition(".")
        for value in values:
            if name in known:
                read(known[name], value, f"axis {name} of {recipe}")
            elif name in of_grid:
                read(of_grid[name], value, f"axis {name}")
            elif kind in KINDS:
                _refuse_for_all(kind, parameter, value)


def _refuse_for_all(kind: str, parameter: str, value: Any) -> None:
    """Refuse a value that no part of a kind takes as this parameter."""
    places = registered(KINDS[kind].folder).values()
    known = [
        own[parameter] for own in map(parameters_of, map(declared, places)) if parameter in own
    ]
    refused = []
    for annotation in known:
        try:
            read(annotation, value, f"axis {kind}.{parameter}")
        except ConfigError as error:
            refused.append(error)
    if known and len(refused) == len(known):
        raise refused[0]


def _parts_of(written: str) -> list[tuple[str, Any]]:
    """The recipe and parts in a strategy or its file, by kind."""
    recipe, arguments, _ = read_spec(written)
    if arguments is not None:
        return list(_parts_in(recipe, arguments))
    file, arguments = recipe, read_toml(Path(recipe))
    fields = [name for name in parameters_of(declared(_STRATEGY)) if name not in _NO_ARGUMENTS]
    try:
        check_table(arguments, fields, registered(KINDS["strategy"].folder))
        if not isinstance(recipe := arguments.pop("recipe", None), str):
            return []
        return list(_parts_in(recipe, arguments))
    except TokenredError as error:
        raise type(error)(f"{file}: {error}") from error


def _parts_in(recipe: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The recipe ``gtp`` and, of its arguments, the parts; the arguments' names are checked."""
    yield "strategy", recipe
    if place := registered(KINDS["strategy"].folder).get(recipe.strip().casefold()):
        own = parameters_of(declared(place))
        known = parameters_of(declared(_STRATEGY)) | own
        for key, value in arguments.items():
            check_amount(recipe.strip(), key, own)
            if key in known:
                read(known[key], value, f"{_name_in(place)}: {key}")
            elif not (key in _of_parts() and any(map(_is_part, arguments.values()))):
                owner = f"strategy {recipe.strip()!r}"
                raise UnknownNameError.of("argument", key, known.keys() - _NO_ARGUMENTS, owner)
    yield from arguments.items()


@cache
def _of_parts() -> set[str]:
    """The parameters of all parts."""
    places = [
        place for kind in KINDS.values() for place in registered(kind.folder).values()
        if kind.kind != "strategy"
    ]  # fmt: skip
    return {name for place in places for name in parameters_of(declared(place))}


def _is_part(value: Any) -> bool:
    """Whether a value may be a part, which may have the parameter: the message is longer then."""
    return isinstance(value, dict) or (isinstance(value, str) and value not in TRUTH)


def _name_in(place: str) -> str:
    return place.rpartition(":")[2]


def _refuse_part(kind: str, part: Any) -> None:
    """Refuse the name of a part, or its arguments."""
    given = part if isinstance(part, dict) else {"name": part}
    if not isinstance(name := given.get("name"), str):
        return
    _refuse_unregistered(kind, name.strip())
    places = {key.casefold(): at for key, at in registered(KINDS[kind].folder).items()}
    if (place := places.get(name.strip().casefold())) is None:
        return
    own = parameters_of(declared(place))
    for key, value in given.items():
        if key in own:
            read(own[key], value, f"{_name_in(place)}: {key}")
        elif key != "name":
            raise UnknownNameError.of("parameter", key, own, _name_in(place))


def _refuse_unregistered(kind: str, name: str) -> None:
    known = {key: registered(registry.folder) for key, registry in KINDS.items()}
    everything = {each.casefold() for names in known.values() for each in names}
    plain = re.fullmatch(r"[A-Za-z][\w-]*", name) and name not in _NO_RECIPES
    # A plug-in's, or a part of another kind: the registry says which.
    if plain and name.casefold() not in everything and not has_plugins():
        told = UnknownNameError.of(KINDS[kind].kind, name, known[kind])
        raise UnknownNameError(f"{told}{IF_OWN}")


def _refuse_unknown_axes(axes: Iterable[str]) -> None:
    """Refuse what is no parameter of a grid, a strategy, a recipe, or anything like a part."""
    places = (_GRID, f"{_GRID}.run", _STRATEGY, *registered(KINDS["strategy"].folder).values())
    known = _of_parts() | {name for place in places for name in parameters_of(declared(place))}
    for axis in axes:
        *owners, name = axis.split(".")
        strange = any(
            each not in KINDS and each != "steps" and not each.isdigit() for each in owners
        )
        if strange or (name not in known and not name.isdigit()):
            raise UnknownNameError(
                f"unknown axis {axis!r}.{did_you_mean(name, known)} An axis is a parameter of the "
                "strategy, of its recipe or of one of its parts, or a setting of the grid such as "
                "model, data or dtype."
            )
