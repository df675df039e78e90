"""Names that nothing registers, refused by reading the source: imports would take seconds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenred.cli.declared import declared, registered
from tokenred.core.errors import IF_OWN, UnknownNameError, did_you_mean
from tokenred.core.notation import AMOUNTS, read_arguments, read_share
from tokenred.core.plugins import has_plugins
from tokenred.core.registry import KINDS

_NO_RECIPES = ("dense", "base", "none")
_STRATEGY = "tokenred.strategies.strategy:Strategy.__init__"
_GRID = "tokenred.analysis:Grid"
_PACKAGE = Path(__file__).parents[1]
_FIELD = re.compile(r"^    (\w+): ", re.MULTILINE)  # of a class, which may inherit more


def refuse_unknown(given: Mapping[str, Any]) -> None:
    """Refuse strategies, parts and axes that cannot be, as far as that is known without PyTorch.

    Args:
        given: the options of a command.

    Raises:
        ConfigError: for an argument that cannot be read, or a share that is not one.
        UnknownNameError: with the closest names.
    """
    specs, parts, axes = list[str](), list[tuple[str, Any]](), list[str]()
    for option in ("strategy", "base", "against"):
        text = given.get(option) or ()
        specs += [text] if isinstance(text, str) else text
    for axis in given.get("axis") or ():
        name, _, text = map(str.strip, axis.partition("="))
        values = [text] if ":" in text else text.split(",")
        parts += [(name, value) for value in values]
        specs += values if name == "base" else []
        axes.append(name)
    for spec in specs:
        if not spec.endswith(".toml"):
            body, at, share = spec.rpartition("@")
            parts += _parts_in(body if at else share, spec)
            if at:
                read_share(spec, share)
    if "builder" in given:
        parts.append(("graph", given["builder"].partition(":")[0]))
    for kind, part in parts:
        named = part.get("name") if isinstance(part, dict) else part
        if kind in KINDS and isinstance(named, str):
            _refuse_unregistered(kind, named.strip())
    if axes and not has_plugins():
        _refuse_unknown_axes(axes)


def _parts_in(text: str, written: str) -> Iterator[tuple[str, Any]]:
    """What ``gtp:P=4,scorer=DiagAttn`` names, by kind; the names of its arguments are checked."""
    recipe, _, rest = text.partition(":")
    yield "strategy", recipe
    arguments = read_arguments(rest, written) if rest else {}
    if place := registered(KINDS["strategy"].folder).get(recipe.strip().casefold()):
        known = _parameters(place) | _parameters(_STRATEGY)
        for key in arguments:
            if key not in known | {*AMOUNTS}:
                owner = f"strategy {recipe.strip()!r}"
                raise UnknownNameError.of("argument", key, known - {"selector"}, owner)
    yield from arguments.items()


def _parameters(place: str) -> set[str]:
    return {*inspect.signature(declared(place)).parameters} - {"self"}


def _refuse_unregistered(kind: str, name: str) -> None:
    known = {key: registered(registry.folder) for key, registry in KINDS.items()}
    everything = {each.casefold() for names in known.values() for each in names}
    plain = re.fullmatch(r"[A-Za-z][\w-]*", name) and name not in _NO_RECIPES
    # A plug-in's, or a part of another kind: the registry says which.
    if plain and name.casefold() not in everything and not has_plugins():
        told = UnknownNameError.of(KINDS[kind].kind, name, known[kind])
        raise UnknownNameError(f"{told}{IF_OWN}")


def _refuse_unknown_axes(axes: list[str]) -> None:
    """Refuse what is no parameter of a grid, a strategy, a recipe, or anything like a part."""
    known = _parameters(_GRID) | _parameters(f"{_GRID}.run") | _parameters(_STRATEGY)
    for place in registered(KINDS["strategy"].folder).values():
        known |= _parameters(place)
    for folder in ("strategies", "graphs", "attention"):
        for file in (_PACKAGE / folder).rglob("*.py"):
            known.update(_FIELD.findall(file.read_text(encoding="utf-8")))
    for axis in axes:
        name = axis.rpartition(".")[2]
        if name not in known and not name.isdigit():
            raise UnknownNameError(
                f"unknown axis {axis!r}.{did_you_mean(name, known)} An axis is a parameter of the "
                "strategy, of its recipe or of one of its parts, or a setting of the grid such as "
                "model, data or dtype."
            )
