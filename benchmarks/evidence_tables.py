"""The tables of `evidence.py`, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

# Variants of a recipe, in addition to or instead of the default.
FORMS = {
    "gtp": ("gtp", "gtp:fuser=prune", "gtp:scorer=DiagAttn", "gtp:scorer=BroadAttn",
            "gtp:aggregate=mean", "gtp:graph=spatial", "gtp:graph=semantic", "gtp:alpha=0.2",
            "gtp:proportional_attention=false", "gtp:theta=0.6"),
    "dpcknn": ("dpcknn:equal_weights=true",),
}  # fmt: skip
FILLED = ("gtp", "gtp:fuser=prune", "tome", "evit", "random")
FILLS = ("last", "own", "nearest")
UNTRAINED = ("dynamicvit", "mstm", "patchmerger", "sinkhorn", "sit")


def shown(
    row: Mapping[str, Any], name: str, places: int, signed: bool = False, ends: bool = True
) -> str:
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None or value != value:
        return ""
    form = f"{{:{'+' * signed}.{places}f}}"
    return form.format(value) + (
        f" [{form.format(low)}, {form.format(high)}]" if ends and low is not None else ""
    )


def table(frame: pd.DataFrame, by: str, columns: Mapping[str, Any]) -> str:
    """Markdown with a section for each budget, best method first."""
    columns = {title: what for title, what in columns.items() if what[0] in frame}
    if "overhead" in frame:
        columns = {"overhead": ("overhead", 4), **columns}
    head = ["method", "GMACs", *columns]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    frame = frame[frame["fill"] == "last"] if "fill" in frame else frame
    for share in sorted(set(frame["share"]), key=lambda text: -float(text or 1)):
        part = frame[frame["share"] == share].sort_values(by, ascending=False)
        if share:
            lines.append(f"| **at {share}** |{' |' * (len(head) - 1)}")
        for row in part.to_dict("records"):
            cells = [f"`{row['method']}`{'*' * (row['method'] in UNTRAINED)}", f"{row['cost']:.3f}"]
            cells += [shown(row, *what) for what in columns.values()]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def joined(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """All rows of ``new``, and those of ``old`` for other methods and budgets."""
    old["share"] = old["share"].fillna("")
    known = set(zip(new["method"], new["share"], strict=True))
    others = [row not in known for row in zip(old["method"], old["share"], strict=True)]
    return pd.concat((new, old[others]), ignore_index=True)


def counted(frame: pd.DataFrame) -> str:
    """The number of images, by budget if it differs."""
    reduced = frame[frame["share"] != ""] if frame["share"].any() else frame
    by_count = reduced.groupby("images")["share"].unique()
    told = [f"{count} images at {', '.join(shares)}" for count, shares in by_count.items()]
    return f"{'; '.join(told)}." if len(told) > 1 else f"{frame['images'].min()} images."


def fills(frame: pd.DataFrame) -> str:
    """Markdown: correlation of the maps for each way to fill patches without a token."""
    wide = frame[frame["method"].isin(FILLED)].pivot(
        index=["share", "method"], columns="fill", values="correlation"
    )
    wide = wide.loc[wide.index.sort_values(ascending=False), list(FILLS)]
    lines = [f"| GMACs | method | {' | '.join(f'`{fill}`' for fill in FILLS)} |",
             f"|{' --- |' * (2 + len(FILLS))}"]  # fmt: skip
    for (share, method), row in wide.iterrows():
        cells = " | ".join(f"{value:.3f}" for value in row)
        lines.append(f"| {share} | `{method}` | {cells} |")
    return "\n".join(lines)


def parts(frame: pd.DataFrame, places: int) -> str:
    """Markdown: what one part of GTP changed does, by budget, paired with GTP's default."""
    frame = frame[frame["fill"] == "last"] if "fill" in frame else frame
    shares = sorted({share for share in frame["share"] if share}, key=float, reverse=True)
    lines = [f"| changed | {' | '.join(f'at {share}' for share in shares)} |",
             f"|{' --- |' * (1 + len(shares))}"]  # fmt: skip
    rows = {(row["method"], row["share"]): row for row in frame.to_dict("records")}
    for form in FORMS["gtp"][1:]:
        cells = [shown(rows.get((form, at), {}), "from_gtp", places, signed=True) for at in shares]
        lines.append(f"| `{form.partition(':')[2]}` | {' | '.join(cells)} |")
    return "\n".join(lines)
