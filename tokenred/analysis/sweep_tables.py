"""The tables of a sweep, and what is said beneath them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.table import Table

from tokenred.analysis.measure.split import LINES
from tokenred.analysis.result import interval, number, table_of
from tokenred.analysis.study.cell import DONE

__all__ = ["footnotes", "split_table", "sweep_table"]

_SETTINGS = {
    "model": "model", "image_size": "images", "dtype": "dtype", "compile": "compiled",
    "threads": "threads", "device": "device",
}  # fmt: skip
# Headings of a split, where those of `LINES` would not fit side by side.
_NARROW = {
    "attention": "atten-\ntion", "statistics": "stats,\nθ", "selection": "select",
    "projections": "qkv,\nproj.", "mlp": "MLP", "untouched": "whole\nblocks",
    "ends": "embed,\nhead",
}  # fmt: skip
_NAMED = ("model", "image_size", "dtype", "device")
Rows = Sequence[Mapping[str, Any]]
Columns = dict[str, Callable[[Mapping[str, Any]], str]]


def sweep_table(rows: Rows) -> Table:
    """The figures, one row a cell; settings that all rows share are in the title."""
    columns, title = _head(rows)
    left = len(columns) - 1
    columns |= {
        "GMACs\nan image": lambda row: number(row, "gmacs", 3),
        "images\na second": lambda row: number(
            row, "images_per_second", 0 if row.get("images_per_second", 0) >= 100 else 1
        ),
        "speed-up over dense\n[90% interval]": lambda row: (
            interval(row, "speedup") if row["status"] == DONE else row["status"]
        ),
        "the GMACs\nallow": lambda row: number(row, "allowed", 2),
        "realised fraction\n[90% interval]": lambda row: interval(row, "realised"),
    }
    if any("peak_bytes" in row for row in rows):
        columns["peak MiB\n(dense)"] = _memory
    return table_of(columns, rows, title=title, left=left)


def split_table(rows: Rows) -> Table:
    """Shares of a forward, one row a cell whose time was split."""
    rows = [row for row in rows if "split_attention" in row]
    columns, _ = _head(rows)
    left = len(columns) - 1
    used = {n: _NARROW.get(n, n) for n in LINES if any(row[f"split_{n}"] for row in rows)}
    for name, heading in {**used, "choosing": "select,\ngraph, fuse"}.items():
        columns[heading] = partial(_share, name=name)
    columns["cost of\nlooking"] = lambda row: f"{row['split_cost_of_looking']:+.1%}"
    return table_of(columns, rows, title="where the time goes", left=left)


def footnotes(rows: Rows, refused: Iterable[tuple[str, str]]) -> list[str]:
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
    by_reason: dict[str, list[str]] = {}
    for cell, reason in refused:
        by_reason.setdefault(reason, []).append(cell)
    for reason, cells in by_reason.items():
        more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
        lines.append(f"Not possible: {cells[0]}{more}: {reason}")
    return lines


def _head(rows: Rows) -> tuple[Columns, str]:
    """The columns that say which cell it is, and what all rows share, in words."""
    vary = [name for name in _SETTINGS if len({row.get(name) for row in rows}) > 1]
    columns: Columns = {_SETTINGS[name]: partial(_word, name=name) for name in vary}
    columns["strategy"] = lambda row: row["strategy"]
    columns["batch"] = lambda row: str(row["batch_size"])
    words = {name: str(rows[0].get(name, "")) for name in _NAMED} if rows else {}
    if "image_size" in words:
        words["image_size"] = f"images {words['image_size']}"
    return columns, ", ".join(word for name, word in words.items() if name not in vary)


def _word(row: Mapping[str, Any], name: str) -> str:
    return str(row.get(name, ""))


def _share(row: Mapping[str, Any], name: str) -> str:
    return f"{row[f'split_{name}']:.1%}"


def _memory(row: Mapping[str, Any]) -> str:
    if "peak_bytes" not in row:
        return ""
    return f"{row['peak_bytes'] / 2**20:.1f} ({row['dense_peak_bytes'] / 2**20:.1f})"
