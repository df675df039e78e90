"""Judge the rows of a sweep, and write them as a table for the README."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenred.analysis.result import count

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One goal for rows.

    Attributes:
        says: the goal in words.
        holds: whether a row keeps it.
        applies: whether it concerns a row at all.
    """

    says: str
    holds: Callable[[Row], bool]
    applies: Callable[[Row], bool]


def realised(least: float, *strategies: str) -> Check:
    """At least this realised fraction; a row misses it only if its whole interval lies below."""
    return Check(
        f"realised ≥ {least:.2f}",
        lambda row: row["realised_high"] >= least,
        lambda row: row["strategy"] in strategies and row.get("engine", "auto") == "auto",
    )


def no_slower(batch_from: int = 8) -> Check:
    """Not slower than the dense model, from this batch size on; compiled, at every batch size."""
    return Check(
        "not slower",
        lambda row: row["speedup_high"] >= 1,
        lambda row: row["batch_size"] >= batch_from or row.get("compile", "false") != "false",
    )


def choosing(most: float, tokens: int) -> Check:
    """At most this share of the forward spent on selection, graph and fuse."""
    return Check(
        f"choosing ≤ {most:.0%}",
        lambda row: row["split_choosing"] <= most,
        lambda row: row["tokens"] == tokens and "split_choosing" in row,
    )


def less_memory(*strategies: str) -> Check:
    """Peak memory below the dense model's."""
    return Check(
        "peak < dense",
        lambda row: row["peak_bytes"] < row["dense_peak_bytes"],
        lambda row: row["strategy"] in strategies and "peak_bytes" in row,
    )


def no_square(batch_size: int) -> Check:
    """Above the dense model's peak, less memory than one attention map per image (N0² floats)."""
    return Check(
        "no full attention map",
        lambda row: (
            row["peak_bytes"] - row["dense_peak_bytes"] < 4 * batch_size * row["tokens"] ** 2
        ),
        lambda row: row["batch_size"] == batch_size and "peak_bytes" in row,
    )


def verdict(row: Row, checks: Sequence[Check]) -> str:
    """The checks that concern a row, each with a tick or a cross."""
    if row["status"] != "done":
        return row["status"]
    about = [check for check in checks if check.applies(row)]
    return "; ".join(f"{check.says} {'✓' if check.holds(row) else '✗'}" for check in about)


def markdown(rows: Sequence[Row], checks: Sequence[Check], command: Sequence[str]) -> str:
    """A table with the command that made it and the machine."""
    done = [row for row in rows if row["status"] == "done"]
    vary = [
        name
        for name in ("model", "image_size", "tokens", "engine", "compile")
        if len({row.get(name) for row in rows}) > 1
    ]
    columns: dict[str, Callable[[Row], str]] = {
        **{name.replace("_", " "): _plain(name) for name in vary},
        "strategy": lambda row: f"`{row['strategy']}`",
        "batch": _plain("batch_size"),
        "GMACs": lambda row: f"{row['gmacs']:.2f}",
        "dense ms": lambda row: f"{row['dense_ms']:.0f}",
        "ms [quartiles]": lambda row: f"{row['ms']:.0f} [{row['ms_q1']:.0f}, {row['ms_q3']:.0f}]",
        "images/s": lambda row: f"{row['images_per_second']:.1f}",
        "speed-up [90%]": lambda row: _interval(row, "speedup"),
        "allowed": lambda row: f"{row['allowed']:.3f}",
        "realised [90%]": lambda row: _interval(row, "realised"),
    }
    if any("peak_bytes" in row for row in done):
        columns["peak MiB (dense)"] = _memory("peak_bytes")
    if any("resident_bytes" in row for row in done):  # of rows from earlier versions
        columns["resident MiB (dense)"] = _memory("resident_bytes")
    if any("split_choosing" in row for row in done):
        for name in ("attention", "statistics", "selection", "graph", "fuse", "choosing",
                     "projections", "mlp", "untouched", "ends", "rest"):  # fmt: skip
            columns[f"{name} %"] = _percent(f"split_{name}")
    columns["goal"] = lambda row: verdict(row, checks)
    lines = [
        f"`{shlex.join(command)}`",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'|'.join(' --- ' for _ in columns)}|",
    ]
    for row in rows:
        cells = [_safely(show, row) for show in columns.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_machine(done)])


def fill(text: str, name: str, content: str) -> str:
    """Replace the section between ``<!-- name -->`` and ``<!-- /name -->`` of a README.

    Raises:
        ValueError: if there is no such section.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"expected {begin} and {end} in the README, found no such section.")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def write_readme(path: Path, name: str, content: str) -> None:
    from tokenred.core.files import write_whole

    text = fill(path.read_text(encoding="utf-8"), name, content)
    write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def _safely(show: Callable[[Row], str], row: Row) -> str:
    """A cell of the table; empty for a row that failed."""
    try:
        return show(row)
    except KeyError:
        return ""


def _plain(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name])


def _percent(name: str) -> Callable[[Row], str]:
    return lambda row: f"{100 * row[name]:.1f}"


def _memory(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name] / 2**20:.0f} ({row[f'dense_{name}'] / 2**20:.0f})"


def _interval(row: Row, name: str) -> str:
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def _machine(rows: Sequence[Row]) -> list[str]:
    facts = {
        (
            f"{row['processor']}, {count(int(row['cores']), 'core')}, "
            f"{count(int(row['threads']), 'thread')}, "
            f"{row['device']}, {row['dtype']}{', compiled' if row['compile'] != 'false' else ''}; "
            f"{row['platform']}, Python {row['python']}, torch {row['torch']}, timm {row['timm']}, "
            f"tokenred {row['tokenred']}; {row['pairs']} pairs, {row['created'][:10]}."
        )
        for row in rows
    }
    return sorted(facts)
