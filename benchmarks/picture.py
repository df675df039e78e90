"""Draw the README's picture from measured rows: ``python benchmarks/picture.py``."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
ROWS = HERE / "results" / "deit_s.csv"
PICTURE = HERE.parent / "docs" / "images" / "speedup.png"
NAMES = {
    "gtp:P=8": "GTP-ViT, P=8",
    "gtp:P=8,theta=0.6": "GTP-ViT, P=8, θ=0.6",
    "tome:r=8": "ToMe, r=8",
    "tome:r=13": "ToMe, r=13",
    "evit:keep_rate=0.7": "EViT, 70%",
    "topk:keep_rate=0.7": "Top-K, 70%",
}


def main() -> None:
    """The latest row of each method: its measured speed-up, and what the GMACs allow."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["strategy"] in NAMES]
    figures = ("speedup", "speedup_low", "speedup_high", "allowed")
    latest = {r["strategy"]: {**r, **{name: float(r[name]) for name in figures}} for r in rows}
    shown = sorted(latest.values(), key=lambda row: row["speedup"])
    figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
    for place, row in enumerate(shown):
        low, high = row["speedup"] - row["speedup_low"], row["speedup_high"] - row["speedup"]
        axes.barh(
            place, row["speedup"], 0.62, color="#26988f", xerr=[[low], [high]],
            error_kw={"ecolor": "#14524e", "capsize": 2, "lw": 1},
        )  # fmt: skip
        axes.plot([row["allowed"]] * 2, [place - 0.38, place + 0.38], color="#d1495b", lw=2)
        axes.text(0.03, place, f"{row['speedup']:.2f}×", color="white", va="center", weight="bold")
    axes.plot([], [], color="#d1495b", lw=2, label="limit set by GMACs")
    axes.set_yticks(range(len(shown)), [NAMES[row["strategy"]] for row in shown])
    axes.axvline(1, color="0.35", lw=1, ls=":", label="the dense model")
    axes.set_xlabel("speed-up over timm's DeiT-S with fused attention (batch 32, 2 CPU cores)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
