"""The colour, marker and printed name of a method, the same in every figure."""

import json
import re
from collections.abc import Iterable
from itertools import cycle
from typing import Any

import pandas as pd

from tokenred.analysis.plots.canvas import MARKERS, Colour, palette
from tokenred.analysis.plots.frames import METHODS, symbol_of
from tokenred.core.notation import split_arguments

Look = tuple[Colour, str]
_GREY = 7  # of the palette; baselines alone have it
# Of the colours without grey, for the user's own methods: first those that GTP-ViT, ToMe, EViT and
# Top-K do not have, the pale ones later.
_OWN = (5, 4, 6, 8, 7, 0, 1, 2, 3)
_BASELINES = {"random": "d", "uniform": "h"}  # markers that no method has
_SMALLER = ("resolution", "depth")  # models of which only the size differs
_PLACES = {name: place for place, name in enumerate(METHODS)}
_SHADES = (0.0, -0.35, 0.4)  # of a method drawn several times: its own, darker, lighter


def looks_of(names: Iterable[Any], *, shades: bool = True) -> dict[Any, Look]:
    """Colour and marker of each method, strategy or scorer, by name.

    Every one in ``columns.toml`` has its own pair. Of two with one colour, the first there keeps
    it, and the other gets another, as names that are not there do: one after another, those that
    the common methods do not have, whether or not these are in the figure. Strategies of one method
    have its colour in shades, each with another marker; the plain method keeps its own. Numbers
    have the colours in their order. The dense model is black, baselines are grey. A strategy with a
    scorer of the user's own looks like that scorer.

    Args:
        names: of the lines of a figure, in the order of its frame.
        shades: whether strategies of one method have shades of its colour even while other colours
            are free.
    """
    names, colours = list(dict.fromkeys(names)), palette(10)
    grey = colours.pop(_GREY)
    if all(isinstance(name, int | float) for name in names):
        return dict(zip(names, zip(cycle(colours), cycle(MARKERS)), strict=False))
    found = {name: _method_of(name) for name in names}
    keepers = dict[int, str]()  # methods with their own colour, by that colour; grey is the last
    for method, place in _PLACES.items():
        if method in found.values():
            own = len(colours) if method in _BASELINES else place % len(colours)
            keepers.setdefault(own, method)
    places = {method: _PLACES[method] for method in keepers.values()}
    taken = [own for own in keepers if own < len(colours)]
    start = -(-len(_PLACES) // len(colours)) * len(colours)  # the first colour again
    places_left = range(start, start + len(colours) * len(MARKERS))
    later = sorted(places_left, key=lambda place: _OWN.index(place % len(colours)))
    times, looks = dict[str, int](), dict[Any, Look]()

    def turn(name: Any) -> tuple[bool, bool, bool]:
        method = found[name]  # the user's own before methods that others keep from their colour
        return bool(_divided(name)[1]), method not in keepers.values(), method in _PLACES

    for name in sorted(found, key=turn):
        method = found[name]
        if method == "dense":
            looks[name] = ((0.0, 0.0, 0.0), "*")
            continue
        again = times[method] = times.get(method, -1) + 1
        free = not shades and len(set(taken)) < len(colours)
        if moved := method not in places or (again and free):
            place = min(later, key=lambda place: taken.count(place % len(colours)))
            later.remove(place)
            taken.append(place % len(colours))
            places.setdefault(method, place)
        else:
            place = places[method]
        shade = 0.0 if moved else _SHADES[again % len(_SHADES)]
        again = 0 if moved else again
        marker = MARKERS[(place + 2 * (place // len(colours)) + again) % len(MARKERS)]
        colour = colours[place % len(colours)]
        if method in _BASELINES and place == _PLACES[method]:
            colour, marker = grey, marker if again else _BASELINES[method]
        end = 1.0 if shade > 0 else 0.0
        r, g, b = (part + abs(shade) * (end - part) for part in colour)
        looks[name] = ((r, g, b), marker)
    return {name: looks[name] for name in found}


def read_name(name: Any) -> str:
    """A strategy as a reader knows it: ``tome:r=8`` is "ToMe, r=8"."""
    recipe, arguments, share = _divided(name)
    if (known := METHODS.get(recipe)) is None:
        return re.sub(r"@(?=[\d.]+$)", " at ", str(name))
    words = [known]
    for argument in arguments:
        key, equals, value = argument.partition("=")
        words.append(f"{symbol_of(key)}={value}" if equals else argument)
    return ", ".join(words) + (f" at {share}" if share else "")


def variants_of(frame: pd.DataFrame) -> list[str]:
    """The method of each row, with those of its arguments that are not its budget.

    Rows of one method whose strategies differ in their schedules alone get the same name: what
    their labels share, such as ``topk:scorer=Mine`` of two keep rates. Where no configurations are
    known, the methods.
    """
    methods = [str(method) for method in frame["method"]]
    if not {"strategy", "config"} <= set(frame):
        return methods
    configs = map(_without_schedule, frame["config"])
    keys = [(m, "" if m in _SMALLER else c) for m, c in zip(methods, configs, strict=True)]
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for key, label in zip(keys, frame["strategy"], strict=True):
        labels.setdefault(key, {})[str(label)] = None
    names = {key: _shared(key[0], list(own)) for key, own in labels.items()}
    for key, own in labels.items():  # the user's own names say no arguments
        if list(names.values()).count(names[key]) > 1:
            names[key] = ", ".join(own)
    return [names[key] for key in keys]


def _shared(method: str, labels: list[str]) -> str:
    """What some strategies of a method have in common."""
    if len(labels) == 1:
        return labels[0]
    (recipe, arguments, share), *rest = map(_divided, labels)
    if {recipe, *(other for other, *_ in rest)} != {method}:
        return method
    same = [argument for argument in arguments if all(argument in own for _, own, _ in rest)]
    text = f"{method}:{','.join(same)}" if same else method
    return f"{text}@{share}" if share and all(own == share for *_, own in rest) else text


def _without_schedule(config: Any) -> str:
    """The JSON of a strategy without its schedules; other text as it is."""
    try:
        table = json.loads(config)
        for step in (table, *table.get("steps", ())):
            step.pop("schedule", None)
    except (TypeError, ValueError, AttributeError):
        return str(config)
    return json.dumps(table, sort_keys=True)


def _method_of(name: Any) -> str:
    """The method that a name stands for: an own scorer's, or the recipe's."""
    recipe, arguments, _ = _divided(name)
    for argument in arguments:
        scorer = re.match(r"scorer=(\w+)", argument)
        if scorer and scorer[1].casefold() not in METHODS:
            return scorer[1].casefold()
    return recipe


def _divided(name: Any) -> tuple[str, list[str], str]:
    """The method in a strategy's name, its arguments, and the share."""
    body, at, share = str(name).rpartition("@")
    recipe, _, arguments = (body if at else share).partition(":")
    written = split_arguments(arguments) if arguments else []
    return recipe.casefold(), written, share if at else ""
