"""Draw the pictures of measured rows for README and docs: ``python benchmarks/picture.py``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evidence_tables import UNTRAINED

from tokenred.analysis import save_figure
from tokenred.analysis.plots.canvas import new_figure, new_grid, palette
from tokenred.analysis.plots.looks import read_name

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PICTURES = HERE.parent / "docs" / "images"
SPEEDS = {
    "gtp:P=8": "GTP-ViT, P = 8",
    "gtp:P=8,theta=0.6": "GTP-ViT, P = 8, θ = 0.6",
    "tome:r=8": "ToMe, r = 8",
    "tome:r=13": "ToMe, r = 13",
    "evit:keep_rate=0.7": "EViT, keep 70%",
    "topk:keep_rate=0.7": "Top-K, keep 70%",
}
SHARE = 0.7  # of the dense model's GMACs
NAMES = {
    "dpcknn:equal_weights=true": "DPC-KNN, equal weights",
    "gtp:fuser=prune": "GTP-ViT, pruned",
}
FAMILIES = {
    "merge similar tokens": ("adamerge", "algm", "atc", "cubistmerge", "dpcknn", "dtome", "mctf",
                             "pitome", "tome", "tomecis"),
    "drop tokens": ("ats", "gtp:fuser=prune", "kmedoids", "random", "topk", "tri-level", "uniform"),
    "propagate, fuse, idle, or a mix": (),
}  # fmt: skip


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    """The rows of a CSV, with figures as numbers."""
    with (RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {key: _number(value) for key, value in row.items()}


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def speed() -> None:
    """The latest row of each method: its measured speed-up, and its ratio of GMACs."""
    latest = {row["strategy"]: row for row in rows_of("deit_s") if row["strategy"] in SPEEDS}
    shown = sorted(latest.values(), key=lambda row: row["speedup"])
    blue, orange, *_ = palette(2)
    with new_figure(5.4, 2.6) as (figure, axes):
        for place, row in enumerate(shown):
            value, low, high = row["speedup"], row["speedup_low"], row["speedup_high"]
            ends, line = [[value - low], [high - value]], {"lw": 1, "capsize": 2, "zorder": 5}
            axes.barh(place, value - 1, 0.62, left=1, color=blue)
            axes.errorbar(value, place, xerr=ends, color="0.15", **line)
            axes.plot([row["allowed"]] * 2, [place - 0.4, place + 0.4], color=orange, lw=2.5)
            clear = max(high, row["allowed"] if value < row["allowed"] else 0)
            axes.text(clear + 0.015, place, f"{value:.2f}×", va="center", weight="bold", size=9)
        axes.barh([1], [0], left=1, color=blue, label="measured, 90% interval")
        axes.plot([], [], color=orange, lw=2.5, label="dense GMACs ÷ GMACs")
        axes.legend(
            reverse=True, loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=2, fontsize=8,
            columnspacing=1.6, handlelength=1.6,
        )  # fmt: skip
        axes.set_yticks(range(len(shown)), [SPEEDS[row["strategy"]] for row in shown], size=8.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(1, 1.97)
        ticks = [1, 1.2, 1.4, 1.6, 1.8]
        axes.set_xticks(ticks, ["dense", *(f"{tick}×" for tick in ticks[1:])], size=8)
        axes.set_xlabel("speed-up of DeiT-S over timm's own model with fused attention")
        axes.grid(axis="y", visible=False)
    save_figure(figure, PICTURES / "speedup.png", overwrite=True, dpi=200)


def results() -> None:
    """All methods without untrained parts at one budget, on photographs and on CIFAR-10."""
    panels = [
        ("evidence_photographs", "correlation", "photographs: correlation with the dense map", 1),
        ("evidence_cifar10", "from_dense", "CIFAR-10: difference in top-1 (points)", 0),
    ]
    figures = {
        name: {row["method"]: row for row in rows_of(name)
               if row["share"] == SHARE and row.get("fill", "last") == "last"
               and row["method"] not in UNTRAINED}
        for name, *_ in panels
    }  # fmt: skip
    first = figures[panels[0][0]]
    order = sorted(first, key=lambda method: first[method]["correlation"])
    colours = dict(zip(FAMILIES, palette(3), strict=True))
    *_, other = FAMILIES
    with new_grid(7, 4.6, 1, 2, sharey=True) as (figure, grid):
        for axes, (name, column, label, equal) in zip(grid[0], panels, strict=True):
            for place, method in enumerate(order):
                row = figures[name].get(method)
                if row is None:
                    continue
                plain = method if method in FAMILIES["drop tokens"] else method.partition(":")[0]
                family = next((f for f, names in FAMILIES.items() if plain in names), other)
                low, high = row[f"{column}_low"], row[f"{column}_high"]
                axes.plot([low, high], [place] * 2, color=colours[family], lw=1.2, alpha=0.6)
                axes.plot(row[column], place, "o", ms=4.5, mec="white", mew=0.5,
                          color=colours[family])  # fmt: skip
            axes.axvline(equal, color="0.55", lw=0.8, ls=(0, (4, 3)))
            axes.set_xlabel(label)
            axes.tick_params(axis="y", length=0)
        grid[0, 0].set_yticks(range(len(order)), [NAMES.get(m, read_name(m)) for m in order])
        for family, colour in colours.items():
            grid[0, 0].plot([], [], "o", ms=4.5, color=colour, label=family)
        figure.legend(loc="outside upper center", ncols=3, fontsize=8, handletextpad=0.1)
    save_figure(figure, PICTURES / "results.png", overwrite=True, dpi=200)


if __name__ == "__main__":
    speed()
    results()
