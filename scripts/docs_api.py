"""The pages of the API: every public name, described once, where it first appears."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import tokenred

__all__ = ["api_pages"]

_WORDS = {
    "contracts": "The base classes of parts, and the objects passed to them. "
    "[Write a part](../extending.md) shows how to use them.",
    "parts": "The classes and functions behind the names of the [catalogue](../catalogue.md).",
}
_MODULES = (
    "attention", "graphs", "backbones", "models", "data", "training", "analysis", "export",
    "testing", "errors",
)  # fmt: skip
_PARTS = (
    "recipes", "scorers", "selectors", "fusers", "schedules", "routers", "embeddings", "score_mods",
)  # fmt: skip
_FIRST = ("wrap", "strategy", "Strategy", "ReducedViT", "gmacs", "save", "load")


def api_pages() -> tuple[dict[str, str], dict[str, str]]:
    """The pages by their path on the site, and the page that describes each object."""
    places: dict[str, str] = {}
    pages = {
        "api/tokenred.md": _page("tokenred", "", list(_top(functions=True)), places, "tokenred"),
        "api/contracts.md": _page(
            "Contracts", _WORDS["contracts"], list(_top(functions=False)), places, "contracts"
        ),
    }
    parts = [pair for name in _PARTS for pair in _public(getattr(tokenred, name))]
    parts += [pair for pair in _public(tokenred.graphs) if pair[0] not in ("Graph", "GraphBuilder")]
    pages["api/parts.md"] = _page("Part classes", _WORDS["parts"], parts, places, "parts")
    for name in _MODULES:
        module = getattr(tokenred, name)
        about = inspect.getdoc(module) or ""
        pages[f"api/{name}.md"] = _page(
            f"tokenred.{name}", about.split("\n\n")[0], list(_public(module)), places, name
        )
    return pages, places


def _top(*, functions: bool) -> Iterator[tuple[str, Any]]:
    """The names at top level: either functions to call, or classes to derive from."""
    names = [*_FIRST, *(name for name in tokenred.__all__ if name not in _FIRST)]
    for name in names:
        value = getattr(tokenred, name)
        if inspect.ismodule(value) or name.startswith("__"):
            continue
        one_calls = not inspect.isclass(value) or name in _FIRST
        if one_calls == functions:
            yield name, value


def _public(module: Any) -> Iterator[tuple[str, Any]]:
    yield from ((name, getattr(module, name)) for name in module.__all__)


def _page(
    title: str, about: str, names: list[tuple[str, Any]], places: dict[str, str], page: str
) -> str:
    here, there, plain = [], [], []
    for name, value in names:
        full = _full_name(value)
        if full is None or not _is_its_own(full, value):
            plain.append(f"| `{name}` | {_told(value)} |")
        elif full in places:
            there.append(f"[`{name}`][{full}]")
        else:
            places[full] = f"api/{page}.md#{full}"
            here.append(f"::: {full}\n")
    pieces = [f"# {title}\n"]
    if about:
        pieces.append(f"{about}\n")
    if there:
        pieces.append(f"Described elsewhere: {', '.join(there)}.\n")
    if plain:
        here.append("\n".join(["## Other names\n", "| name | |", "| --- | --- |", *plain]) + "\n")
    return "\n".join([*pieces, *here])


def _full_name(value: Any) -> str | None:
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    return f"{module}.{name}" if module.split(".")[0] == "tokenred" else None


def _is_its_own(full: str, value: Any) -> bool:
    """Whether the full name leads back to the object (a bound method's does not)."""
    module, _, name = full.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None) is value
    except ImportError:
        return False


def _told(value: Any) -> str:
    owner = getattr(value, "__self__", None)
    if owner is not None and hasattr(owner, "kind"):
        if value.__name__ == "names":
            return f"the names of every {owner.kind}"
        return f"decorator that registers its class as {owner.kind} under a name"
    text = repr(value)
    return f"`{text}`" if len(text) < 60 and "|" not in text else type(value).__name__
