"""The tables of a sweep, and what is said beneath them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenred.analysis.measure.split import LINES
from tokenred.analysis.sweeps.cells import Cell

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["DONE", "footnotes", "split_table", "sweep_table"]

DONE = "done"
_SETTINGS = {
    "model": "model",
    "image_size": "images",
    "dtype": "dtype",
    "compile": "compiled",
    "threads": "threads",
    "device": "device",
}
# Headings of a split, where those of `LINES` would not fit side by side.
_NARROW = {
    "attention": "atten-\ntion",
    "statistics": "stats,\nθ",
    "selection": "select",
    "projections": "qkv,\nproj.",
    "mlp": "MLP",
    "untouched": "whole\nblocks",
    "ends": "embed,\nhead",
}
_NAMED = ("model", "image_size", "dtype", "device")
Rows = Sequence[Mapping[str, Any]]


def sweep_table(rows: Rows) -> Table:
    """The figures, one row a cell; settings that all rows share are in the title."""
    vary = _varying(rows)
    table = _new_table(_title(rows, vary), vary)
    table.add_column("GMACs\nan image", justify="right")
    table.add_column("images\na second", justify="right")
    table.add_column("speed-up over dense\n[90% interval]", justify="right", no_wrap=True)
    table.add_column("the GMACs\nallow", justify="right")
    table.add_column("realised fraction\n[90% interval]", justify="right", no_wrap=True)
    memory = any("peak_bytes" in row for row in rows)
    if memory:
        table.add_column("peak MiB\n(dense)", justify="right")
    for row in rows:
        cells = _head(row, vary) + _figures(row) + ([_memory(row)] if memory else [])
        _add(table, cells)
    return table


def split_table(rows: Rows) -> Table:
    """Shares of a forward, one row a cell whose time was split."""
    rows = [row for row in rows if "split_attention" in row]
    vary = _varying(rows)
    table = _new_table("where the time goes", vary)
    used = [name for name in LINES if any(row[f"split_{name}"] for row in rows)]
    for name in used:
        table.add_column(_NARROW.get(name, name), justify="right", no_wrap=True)
    table.add_column("select,\ngraph, fuse", justify="right", no_wrap=True)
    table.add_column("cost of\nlooking", justify="right", no_wrap=True)
    for row in rows:
        shares = [f"{row[f'split_{name}']:.1%}" for name in [*used, "choosing"]]
        _add(table, [*_head(row, vary), *shares, f"{row['split_cost_of_looking']:+.1%}"])
    return table


def footnotes(rows: Rows, refused: Iterable[tuple[Cell, str]]) -> list[str]:
    """What the table was made with, what failed and what was refused."""
    lines = []
    done = [row for row in rows if row["status"] == DONE]
    if done:
        first, pairs = done[0], sorted({row["pairs"] for row in done})
        shown = str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
        lines.append(
            f"Speed: {shown} pairs with timm's fused dense model right before each run; medians. "
            f"{first['processor']}, {first['cores']} cores, tokenred {first['tokenred']}, "
            f"torch {first['torch']}, timm {first['timm']}, seed {first['seed']}."
        )
        lines.append("Realised fraction: measured speed-up ÷ the speed-up that the GMACs allow.")
    if any("peak_bytes" in row for row in done):
        lines.append(
            "Peak: of PyTorch's allocations in a forward, weights and images not counted; buffers "
            "outside of PyTorch are not seen."
        )
    for row in rows:
        if row["status"] != DONE:
            words = [row["model"], row["strategy"], f"batch {row['batch_size']}"]
            words.append(f"images {row['image_size']}")
            lines.append(f"{row['status'].capitalize()}: {', '.join(words)}: {row['error']}")
    by_reason: dict[str, list[Cell]] = {}
    for cell, reason in refused:
        by_reason.setdefault(reason, []).append(cell)
    for reason, cells in by_reason.items():
        more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
        lines.append(f"Not possible: {cells[0]}{more}: {reason}")
    return lines


def _new_table(title: str, vary: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_style="bold", box=None, header_style="bold", pad_edge=False)
    for name in vary:
        table.add_column(_SETTINGS[name], no_wrap=True)
    table.add_column("strategy", no_wrap=True)
    table.add_column("batch", justify="right")
    return table


def _add(table: Table, cells: Sequence[str]) -> None:
    from rich.text import Text

    # Text, since square brackets mean styles in plain strings.
    table.add_row(*(Text(cell) for cell in cells))


def _varying(rows: Rows) -> list[str]:
    return [name for name in _SETTINGS if len({row.get(name) for row in rows}) > 1]


def _title(rows: Rows, vary: Sequence[str]) -> str:
    words = {name: str(rows[0].get(name, "")) for name in _NAMED} if rows else {}
    if "image_size" in words:
        words["image_size"] = f"images {words['image_size']}"
    return ", ".join(word for name, word in words.items() if name not in vary)


def _head(row: Mapping[str, Any], vary: Sequence[str]) -> list[str]:
    return [str(row.get(name, "")) for name in vary] + [row["strategy"], str(row["batch_size"])]


def _figures(row: Mapping[str, Any]) -> list[str]:
    if row["status"] != DONE:
        return ["", "", row["status"], "", ""]
    return [
        f"{row['gmacs']:.3f}",
        f"{row['images_per_second']:.{0 if row['images_per_second'] >= 100 else 1}f}",
        f"{row['speedup']:.2f} [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]",
        f"{row['allowed']:.2f}",
        f"{row['realised']:.2f} [{row['realised_low']:.2f}, {row['realised_high']:.2f}]",
    ]


def _memory(row: Mapping[str, Any]) -> str:
    if "peak_bytes" not in row:
        return ""
    return f"{row['peak_bytes'] / 2**20:.1f} ({row['dense_peak_bytes'] / 2**20:.1f})"
