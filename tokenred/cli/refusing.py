"""Names and values that cannot be, refused by reading the source: imports would take seconds."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tokenred.cli.declared import declared, registered, timm_models
from tokenred.cli.options import DATA_OF, refuse_missing
from tokenred.core.errors import IF_OWN, ConfigError, UnknownNameError, did_you_mean, no_device
from tokenred.core.files import names_file
from tokenred.core.notation import AMOUNTS, TRUTH, read_arguments, read_share, split_arguments
from tokenred.core.plugins import has_plugins
from tokenred.core.registry import KINDS
from tokenred.core.values import parameters_of, read

_NO_ARGUMENTS = {"self", "selector"}
_RAW = ("base", "model", "data", "dtype", "compile", "attention", "device")
_NO_RECIPES = ("dense", "base", "none")
_STRATEGY = "tokenred.strategies.strategy:Strategy.__init__"
_GRID = "tokenred.analysis:Grid"
_PACKAGE = Path(__file__).parents[1]
ENGINES = ("serial", "processes", "ray")  # of a grid
_METRIC = re.compile(r'^@register_metric\("(\w+)"', re.MULTILINE)
_FIELD = re.compile(r"^    (\w+): ", re.MULTILINE)  # of a class, which may inherit more


def refuse_unknown(given: Mapping[str, Any]) -> None:
    """Refuse strategies, parts and axes that cannot be, as far as that is known without PyTorch.

    Args:
        given: the options of a command.

    Raises:
        ConfigError: for an argument that cannot be read, or a share that is not one.
        UnknownNameError: with the closest names.
    """
    specs, axes = list[str](), read_axes(given.get("axis") or ())
    for option in ("strategy", "base", "against"):
        text = given.get(option) or ()
        specs += [text] if isinstance(text, str) else text
    parts = [(name, value) for name, values in axes.items() for value in values]
    for spec in (*specs, *axes.get("base", ())):
        if not spec.endswith(".toml"):
            body, at, share = spec.rpartition("@")
            parts += _parts_in(body if at else share, spec)
            if at:
                read_share(spec, share)
    engine = given.get("engine")
    if isinstance(engine, str) and engine not in ENGINES:
        raise UnknownNameError.of("engine", engine, ENGINES)
    if "metrics" in given and not has_plugins():
        text = (_PACKAGE / "analysis/study/metrics.py").read_text(encoding="utf-8")
        known = _METRIC.findall(text)
        for name in given["metrics"]:
            if name.casefold() not in known:
                raise UnknownNameError.of("metric", name, known)
    if "builder" in given:
        name, _, rest = given["builder"].partition(":")
        parts.append(("graph", {"name": name} | read_arguments(rest, given["builder"])))
    models = given.get("model") or ()
    models = (
        models if isinstance(models, tuple) else (getattr(models, "model", models) or "digits",)
    )
    for name in (*models, *axes.get("model", ())):
        _refuse_unknown_model(name)
    for kind, part in parts:
        for each in part if isinstance(part, list) else [part]:
            if kind in KINDS:
                _refuse_part(kind, each)
    if axes and not has_plugins():
        _refuse_unknown_axes(axes)
    if "study" not in given and given.get("invalid") != "skip":
        for base in axes.get("base", [given.get("base") or "gtp"]):
            _refuse_values(base, axes)


def refuse_devices(given: Mapping[str, Any]) -> None:
    """Refuse devices that this machine lacks, before models are loaded."""
    named = given.get("devices") or given.get("device") or ()
    named = [named] if isinstance(named, str) else named
    axes = read_axes(() if given.get("invalid") == "skip" else given.get("axis") or ())
    others = {*named, *axes.get("device", ())} - {"cpu"}
    if others and given.get("engine") != "ray":
        for device in others:
            if why := _why_absent(device.partition(":")[0]):
                raise no_device(device, why)
        from tokenred.core.tensors import check_device

        for device in others:
            check_device(device)


def _why_absent(kind: str) -> str:
    """Why this machine cannot have such a device, if that is known without PyTorch."""
    if kind == "mps" and sys.platform != "darwin":
        return "only macOS has it"
    if kind == "cuda" and sys.platform == "linux" and not Path("/dev/kfd").exists():  # nor AMD's
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "no GPU driver was found"
    return ""


def read_axes(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Axes from ``NAME=VALUE,…``; repeating a name adds values."""
    found: dict[str, list[Any]] = {}
    for written in texts:
        name, _, text = (part.strip() for part in written.partition("="))
        if not name or not text:
            raise ConfigError(f"expected --axis NAME=VALUE,VALUE, got {written!r}.")
        if name == "base":
            values = _strategies_in(text)
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


def _refuse_values(base: str, axes: Mapping[str, list[Any]]) -> None:
    """Refuse values that an argument of a recipe cannot have."""
    recipe = re.split("[:@]", base)[0].strip().casefold()
    of_grid = parameters_of(declared(_GRID))
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


def _parts_in(text: str, written: str) -> Iterator[tuple[str, Any]]:
    """What ``gtp:P=4,scorer=DiagAttn`` names, by kind; the names of its arguments are checked."""
    recipe, _, rest = text.partition(":")
    yield "strategy", recipe
    arguments = read_arguments(rest, written) if rest else {}
    if place := registered(KINDS["strategy"].folder).get(recipe.strip().casefold()):
        known = parameters_of(declared(_STRATEGY)) | parameters_of(declared(place))
        for key, value in arguments.items():
            if key in known:
                read(known[key], value, f"{_name_in(place)}: {key}")
            elif key not in AMOUNTS and not any(map(_is_part, arguments.values())):
                owner = f"strategy {recipe.strip()!r}"
                raise UnknownNameError.of("argument", key, known.keys() - _NO_ARGUMENTS, owner)
    yield from arguments.items()


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
        elif key != "name" and key not in _fields_in(KINDS[kind].folder):  # nor inherited
            raise UnknownNameError.of("parameter", key, own, _name_in(place))


@cache
def _fields_in(folder: str) -> set[str]:
    """The fields of all classes in a package."""
    files = _PACKAGE.parent.joinpath(*folder.split(".")).rglob("*.py")
    return {name for file in files for name in _FIELD.findall(file.read_text(encoding="utf-8"))}


def _refuse_unknown_model(name: str) -> None:
    """Refuse a file that is not there, and a name that timm's source never mentions."""
    architecture = name.partition(".")[0]
    if names_file(name):
        refuse_missing(None, Path(name))
    elif (
        re.fullmatch(r"\w+", architecture)
        and name.casefold() not in DATA_OF
        and "timm" not in sys.modules  # whose registry knows all models, own ones too
        and not has_plugins()
    ):
        known, source = timm_models()
        if known and not re.search(rf"\b{architecture}\b", source):
            raise UnknownNameError.of_model(name, known | DATA_OF.keys())


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
    places = [_GRID, f"{_GRID}.run", _STRATEGY, *registered(KINDS["strategy"].folder).values()]
    known = {name for place in places for name in parameters_of(declared(place))}
    for folder in ("strategies", "graphs", "attention"):
        known |= _fields_in(f"tokenred.{folder}")
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
