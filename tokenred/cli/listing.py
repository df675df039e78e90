"""``tokenred list``: every registered part and recipe, and the plug-ins."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from tokenred.cli.console import make_console
from tokenred.core import plugins
from tokenred.core.errors import UnknownNameError
from tokenred.core.registry import KINDS, Entry, Registry

__all__ = ["list_command", "split_citation"]

# "(GTP-ViT, Xu et al., WACV 2024)", "(EViT, Eq. 3)": a summary says so where it is from.
_CITATION = re.compile(r"\s*\(([^()]*(?:\b(?:19|20)\d\d\b|Eq\.|Fig\.|section )[^()]*)\)")


def list_command(kind: str | None = None, /) -> None:
    """List strategies and parts: arguments, what they do, where they come from.

    Args:
        kind: strategies, scorers, selectors, graphs, fusers, schedules, routers, embeddings,
            score_mods or plugins; all of them if left out.
    """
    known = [registry.plural for registry in KINDS.values()]
    kind = kind and kind.casefold()
    if kind not in (None, "plugins", *known):
        raise UnknownNameError.of("kind of part", kind, [*known, "plugins"])
    console = make_console()
    for registry in KINDS.values():
        if kind == registry.plural or (kind is None and registry.names()):
            console.print(_table(registry))
            console.print()
    found = plugins.load_plugins()
    if found and kind in (None, "plugins"):
        console.print(_plugins(found))
    elif kind == "plugins":
        off = f" ({plugins.SWITCH} switches them off)" if plugins.switched_off() else ""
        console.print(f"no plug-ins{off}")


def _table(registry: Registry[Any]) -> Table:
    table = _empty(registry.plural)
    table.add_column("name", no_wrap=True)
    table.add_column("what it does", ratio=5)
    table.add_column("arguments", ratio=4)
    table.add_column("paper", ratio=3)
    table.add_column("defined in", no_wrap=True)
    if any(entry.plugin for entry in registry):
        table.add_column("plug-in", no_wrap=True)
    for entry in registry:
        what, citation = split_citation(entry.summary)
        module = entry.source.rpartition(".")[0] or entry.source
        cells = (entry.name, what, _arguments(entry), citation, module, entry.plugin)
        _add(table, cells[: len(table.columns)])
    return table


def _plugins(found: Sequence[plugins.Plugin]) -> Table:
    table = _empty("plug-ins")
    table.add_column("package", no_wrap=True)
    table.add_column("entry point", no_wrap=True)
    table.add_column("what it registers", ratio=1)
    for plugin in found:
        parts = ", ".join(f"{kind} {name}" for kind, name in plugin.parts)
        told = f"left out: {plugin.error}" if plugin.error else parts
        _add(table, (plugin.package, f"{plugin.name} = {plugin.value}", told))
    return table


def _empty(title: str) -> Table:
    return Table(
        title=title, title_style="bold", title_justify="left", box=None, pad_edge=False,
        header_style="bold",
    )  # fmt: skip


def _add(table: Table, cells: Iterable[str]) -> None:
    # Text, since square brackets mean styles in plain strings.
    table.add_row(*map(Text, cells))


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
