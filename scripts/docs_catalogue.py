"""The catalogue of parts, generated from the registries."""

from __future__ import annotations

import inspect
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import tokenred as tr
from tokenred.backbones import _BACKBONES, _load
from tokenred.cli.listing import split_citation
from tokenred.core.part import Traits
from tokenred.core.registry import KINDS, Entry

__all__ = ["catalogue"]

_INTRO = """# Parts

Every registered part, listed when this page was built. In Python, pass a part by name or as an
instance (`tr.scorers.MixedAttn(aggregate="mean")`); on the command line, a recipe takes its name
and arguments (`gtp:scorer=DiagAttn,aggregate=mean`). Each part is in a file of its name. `tokenred
list` prints this catalogue, including the parts of installed [plug-ins](plugins.md).

"""
_ABOUT = {
    "strategies": ("Recipes", "Published methods and baselines, by name: `tr.strategy(name, …)`."),
    "scorers": ("Scorers", "How important each token is. The highest scores are kept."),
    "selectors": ("Selectors", "Which tokens are kept, and which of them the others join. A "
                  "selector can be used wherever a scorer can."),
    "graphs": ("Graphs", "Which patches are neighbours; built once, after the embedding."),
    "fusers": ("Fusers", "What happens to the removed tokens."),
    "schedules": ("Schedules", "How many tokens are removed in each block."),
    "routers": ("Routers", "Which tokens skip a block."),
    "embeddings": ("Embeddings", "What changes the tokens before the first block."),
    "score_mods": ("Score mods", "What changes the attention map itself, besides `theta` and "
              "`proportional_attention`."),
}  # fmt: skip


def catalogue(api: Mapping[str, str]) -> str:
    """The page; ``api`` maps full names of objects to the pages that describe them."""
    pieces = [_INTRO, _summary()]
    for registry in KINDS.values():
        title = registry.plural
        heading, about = _ABOUT[title]
        pieces.append(f"## {heading}\n\n{about}\n\n")
        pieces += [_part(title, entry, api) for entry in registry]
    pieces.append(_backbones(api))
    return "".join(pieces)


def _summary() -> str:
    rows = ["| kind | names |", "| --- | --- |"]
    for registry in KINDS.values():
        title = registry.plural
        names = " ".join(f"[`{e.name}`](#{_anchor(title, e.name)})" for e in registry)
        rows.append(f"| {_ABOUT[title][0]} | {names} |")
    return "\n".join(rows) + "\n\n"


def _anchor(title: str, name: str) -> str:
    return f"{title}-{name.casefold().replace('_', '-')}"


def _part(title: str, entry: Entry, api: Mapping[str, str]) -> str:
    what, citation = split_citation(entry.summary)
    module, _, name = entry.source.rpartition(".")
    described = f"[`{name}`]({api[entry.source]})" if entry.source in api else f"`{name}`"
    rows = {
        "class" if inspect.isclass(entry.make) else "function": described,
        "file": f"`{posixpath.join(*module.split('.'))}.py`",
        "source": citation,
        "defaults": _arguments(entry.make),
        "composition": _composition(title, entry),
        "traits": _traits(entry.make),
        "reads": _needs(entry.make),
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items() if value)
    heading = f"### `{entry.name}` {{ #{_anchor(title, entry.name)} }}"
    return f"{heading}\n\n{_sentence(what)}\n\n| | |\n| --- | --- |\n{table}\n"


def _sentence(text: str) -> str:
    # reStructuredText's literals are Markdown's code as well.
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _arguments(make: Callable[..., Any]) -> str:
    empty = inspect.Parameter.empty
    shown = [
        f"`{p.name}`" if p.default is empty else f"`{p.name}={p.default!r}`"
        for p in inspect.signature(make).parameters.values()
    ]
    return " ".join(shown).replace("|", "\\|")


def _composition(title: str, entry: Entry) -> str:
    if title != "strategies":
        return ""
    made = tr.strategy(entry.name)
    plain = tr.Strategy("Random")
    said = [
        f"`{field.name}={getattr(made, field.name)!r}`"
        for field in fields(made)
        if getattr(made, field.name) != getattr(plain, field.name) or field.name == "scorer"
    ]
    return " ".join(said).replace("|", "\\|")


def _traits(make: Callable[..., Any]) -> str:
    traits = getattr(make, "traits", None)
    if not isinstance(traits, Traits):
        return ""
    return ", ".join(f.name.replace("_", " ") for f in fields(traits) if getattr(traits, f.name))


def _needs(make: Callable[..., Any]) -> str:
    if not inspect.isclass(make) or not hasattr(make, "requires"):
        return ""
    try:
        requires = make().requires
    except tr.errors.ConfigError:  # a part with required arguments
        return ""
    if callable(requires):  # a score mod's depends on the block
        requires = dict.fromkeys(need for layer in range(12) for need in requires(layer, 12))
    return " ".join(f"`{_need(need)}`" for need in requires) or "nothing of the attention"


def _need(need: tr.AttentionStat) -> str:
    given = [repr(value) for value in (need.query, need.aggregate) if value != ""]
    return f"AttentionStat.{need.kind}({', '.join(given)})"


def _backbones(api: Mapping[str, str]) -> str:
    _load()
    rows = "".join(
        f"| `{backbone.__name__}` | {backbone.family} "
        f"| `{posixpath.join(*backbone.__module__.split('.'))}.py` |\n"
        for backbone in _BACKBONES
    )
    about = "Families of models. The adapter is found by the class of the model; it has no name."
    return f"## Backbones\n\n{about}\n\n| class | knows | file |\n| --- | --- | --- |\n{rows}"
