"""``tokenred list``: every registered part and recipe, and the plug-ins."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from tokenred.cli.console import say
from tokenred.core import plugins
from tokenred.core.errors import UnknownNameError
from tokenred.core.registry import KINDS, Entry, Registry

__all__ = ["list_command", "split_citation"]

# "(GTP-ViT, Xu et al., WACV 2024)", "(EViT, Eq. 3)": a summary names its source.
_CITATION = re.compile(r"\s*\(([^()]*(?:\b(?:19|20)\d\d\b|Eq\.|Fig\.|section )[^()]*)\)")
# Columns and their share of the width; those without a share never wrap.
_PARTS = {"name": None, "what it does": 5, "arguments": 4, "paper": 3, "defined in": None}
_PLUGINS = {"package": None, "entry point": None, "what it registers": 1}


def list_command(kind: str | None = None, /) -> None:
    """List strategies and parts: arguments, what they do, and where they come from.

    Args:
        kind: strategies, scorers, selectors, graphs, fusers, schedules, routers, embeddings,
            score_mods or plugins; by default all.
    """
    known = [registry.plural for registry in KINDS.values()]
    kind = kind and kind.casefold()
    if kind not in (None, "plugins", *known):
        raise UnknownNameError.of("kind of part", kind, [*known, "plugins"])
    for registry in KINDS.values():
        if kind == registry.plural or (kind is None and registry.names()):
            say(_parts(registry), "")
    found = plugins.load_plugins()
    if found and kind in (None, "plugins"):
        say(_plugins(found))
    elif kind == "plugins":
        off = f" ({plugins.SWITCH}=0 disables them)" if plugins.switched_off() else ""
        say(f"no plug-ins{off}")


def _parts(registry: Registry[Any]) -> Table:
    columns: dict[str, int | None] = dict(_PARTS)
    if any(entry.plugin for entry in registry):
        columns["plug-in"] = None
    rows = []
    for entry in registry:
        what, citation = split_citation(entry.summary)
        module = entry.source.rpartition(".")[0] or entry.source
        rows.append((entry.name, what, _arguments(entry), citation, module, entry.plugin))
    return _table(registry.plural, columns, rows)


def _plugins(found: Sequence[plugins.Plugin]) -> Table:
    rows = []
    for plugin in found:
        parts = ", ".join(f"{kind} {name}" for kind, name in plugin.parts)
        told = f"skipped: {plugin.error}" if plugin.error else parts
        rows.append((plugin.package, f"{plugin.name} = {plugin.value}", told))
    return _table("plug-ins", _PLUGINS, rows)


def _table(title: str, columns: dict[str, Any], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(
        title=title, title_style="bold", title_justify="left", box=None, pad_edge=False,
        header_style="bold",
    )  # fmt: skip
    for name, ratio in columns.items():
        table.add_column(name, ratio=ratio, no_wrap=ratio is None)
    for row in rows:
        # Text, because square brackets in plain strings mean styles.
        table.add_row(*map(Text, row[: len(columns)]))
    return table


def split_citation(summary: str) -> tuple[str, str]:
    """What an entry does, and the paper that its first line cites, if it does."""
    found = _CITATION.search(summary)
    if found is None:
        return summary, ""
    return summary[: found.start()] + summary[found.end() :], found.group(1)


def _arguments(entry: Entry) -> str:
    parameters = inspect.signature(entry.make).parameters.values()
    return ", ".join(
        p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters
    )
