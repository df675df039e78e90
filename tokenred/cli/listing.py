"""``tokenred list``: every registered part and recipe, and the plug-ins."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from tokenred.analysis.terminal_table import plain_table
from tokenred.cli.console import say
from tokenred.core import plugins
from tokenred.core.errors import UnknownNameError
from tokenred.core.registry import KINDS, Entry, Registry

# "(GTP-ViT, Xu et al., WACV 2024)", "(EViT, Eq. 3)": a summary names its source.
_CITATION = re.compile(r"\s*\(([^()]*(?:\b(?:19|20)\d\d\b|Eq\.|Fig\.|section )[^()]*)\)")
# Columns, and the least that those that wrap should have.
_PARTS = {"name": 0, "what it does": 30, "arguments": 22, "paper": 18, "defined in": 40}
_PLUGINS = {"package": 0, "entry point": 0, "what it registers": 20}


def list_command(kind: str | None = None, /) -> None:
    """List strategies, parts and plug-ins.

    With their arguments, what they do, and where they come from.

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
    columns = dict(_PARTS)
    if any(entry.plugin for entry in registry):
        columns["plug-in"] = 0
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


def _table(title: str, columns: dict[str, int], rows: Sequence[Sequence[str]]) -> Table:
    table = plain_table(title, list(columns), left=len(columns), keys=1)
    table.title_justify = "left"
    for column, least in zip(table.columns, columns.values(), strict=True):
        column.no_wrap, column.min_width = not least, least
    for row in rows:
        # Text, since square brackets mean styles in plain strings.
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
