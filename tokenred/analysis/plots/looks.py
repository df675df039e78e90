"""The colour, marker and printed name of a method, the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenred.analysis.plots.canvas import MARKERS, Colour, palette
from tokenred.analysis.plots.frames import METHODS, symbol_of

_GREY = 7  # of the palette; baselines alone have it
_PLACES = {name: place for place, name in enumerate(METHODS)}
_SHADES = (0.0, -0.35, 0.4)  # of a method drawn several times: its own, darker, lighter


def looks_of(names: Iterable[Any]) -> dict[Any, tuple[Colour, str]]:
    """Colour and marker of each method, strategy or scorer, by name.

    Every one in ``columns.toml`` has its own pair, whatever else is in the figure. Strategies of
    one method share its colour, in shades. Other names get the pairs that follow, first those whose
    colours the figure does not have. The dense model is black, baselines are grey.
    """
    colours = palette(10)
    grey = colours.pop(_GREY)
    found = {name: _method(name) for name in dict.fromkeys(names)}
    taken = {_PLACES[method] % len(colours) for method in found.values() if method in _PLACES}
    start = -(-len(_PLACES) // len(colours)) * len(colours)  # the first colour again
    later = range(start, start + len(colours) * len(MARKERS))
    following = iter(sorted(later, key=lambda place: place % len(colours) in taken))
    places, times, looks = dict(_PLACES), dict[str, int](), dict[Any, tuple[Colour, str]]()
    for name, method in found.items():
        if method not in places:
            places[method] = next(following)
        place = places[method]
        again = times[method] = times.get(method, -1) + 1
        colour = grey if method in ("random", "uniform") else colours[place % len(colours)]
        marker = MARKERS[(place + 2 * (place // len(colours)) + again) % len(MARKERS)]
        looks[name] = (_shaded(colour, _SHADES[again % len(_SHADES)]), marker)
        if method == "dense":
            looks[name] = ((0.0, 0.0, 0.0), "*")
    return looks


def read_name(name: Any) -> str:
    """A strategy as a reader knows it: ``tome:r=8`` is "ToMe, r=8"."""
    written, at, share = str(name).rpartition("@")
    recipe, _, arguments = (written if at else share).partition(":")
    if (known := METHODS.get(recipe.casefold())) is None:
        return str(name)
    words = [known]
    for argument in arguments.split(",") if arguments else ():
        key, equals, value = argument.partition("=")
        words.append(f"{symbol_of(key)}={value}" if equals else argument)
    return ", ".join(words) + (f" at {share}" if at else "")


def _method(name: Any) -> str:
    return str(name).partition("@")[0].partition(":")[0].casefold()


def _shaded(colour: Colour, shade: float) -> Colour:
    """Darker below 0, lighter above."""
    end = 1.0 if shade > 0 else 0.0
    r, g, b = (part + abs(shade) * (end - part) for part in colour)
    return r, g, b
