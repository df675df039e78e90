"""Search the compositions of parts for a better method: ``python benchmarks/compositions.py``.

Compositions are drawn from the product of selectors, fusers, graphs, schedules and proportional
attention, and each is scaled to the same share of the dense model's GMACs. The bundled CIFAR-10
ViT judges them on *training* images, in two rounds: all of them at one share; then the best ones
against every published method, on other images, at all shares. The winner is written as a
``.toml``, which ``python benchmarks/evidence.py --also`` confirms on images that no round has seen.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tokenred import Strategy
from tokenred.analysis import Grid, Spec, paired_difference
from tokenred.models import load_model
from tokenred.strategies.fusers import MLERP, Maximum
from tokenred.strategies.schedules import KeepRatio, Linear
from tokenred.strategies.selectors import (
    Agglomerative,
    BipartiteMatching,
    EnergyMatching,
    MultiCriteria,
)

HERE = Path(__file__).parent
PUBLISHED = ("tome", "tomecis", "atc", "mctf", "pitome", "tofu", "gtp", "evit", "topk")
SHARES = (0.85, 0.7, 0.5)

SCHEDULES: dict[str, Any] = {
    "constant": 1,
    **{f"linear{slope:+g}": Linear(1, slope) for slope in (-1.0, -0.5, 0.5, 1.0)},
    "quarters": KeepRatio(0.7),
    "every block": KeepRatio(0.7, "all"),
}
MATCHING: dict[str, Any] = {
    "bipartite": BipartiteMatching(),
    "importance": BipartiteMatching(weights="importance"),
    "energy": EnergyMatching("energy"),
    "alternate": EnergyMatching("bsm"),
    "average": Agglomerative("average"),
    "complete": Agglomerative("complete"),
    "criteria": MultiCriteria(),
    "criteria, size": MultiCriteria(pooling="size"),
    "criteria, information": MultiCriteria(tau_information=5.0, pooling="size"),
    "similarity both ways": MultiCriteria(tau_information=0.0, tau_size=0.0, pooling="size"),
}
MERGING: dict[str, Any] = {"merge": "merge", "mean": "mean", "maximum": Maximum()}
SCORERS = ("MixedAttn", "DiagAttn", "BroadAttn", "CLSAttn", "CosSim", "Random")
GRAPHS = ("spatial", "semantic", "mixed")
PLACES = ("before_block", "after_attention", "after_mlp")


def compositions(depth: int) -> Iterator[tuple[str, Strategy]]:
    """Every composition with its name."""
    merging = MERGING | {"full norm": MLERP(modes=("mlerp",) * depth)}
    for selector, fuser, schedule, sizes, place in itertools.product(
        MATCHING, merging, SCHEDULES, (True, False), PLACES
    ):
        strategy = Strategy(
            selector=MATCHING[selector], fuser=merging[fuser], schedule=SCHEDULES[schedule],
            proportional_attention=sizes, where=place,
        )  # fmt: skip
        yield f"{selector} | {fuser} | {schedule} | {place}{' | sizes' * sizes}", strategy
    for scorer, graph, schedule, place in itertools.product(
        SCORERS, ("none", *GRAPHS), SCHEDULES, PLACES
    ):
        fuser = "prune" if graph == "none" else "propagate"
        strategy = Strategy(
            scorer, graph=graph, fuser=fuser, schedule=SCHEDULES[schedule], where=place
        )
        yield f"{scorer} | {fuser} {graph} | {schedule} | {place}", strategy


def round_of(
    specs: Sequence[Spec], options: argparse.Namespace, name: str, images: int, seed: int
) -> dict[str, Any]:
    """The right and wrong answers of each strategy, by its name."""
    grid = Grid(
        cells=[{"base": spec} for spec in specs], model="cifar10_vit", data=str(options.data),
        limit=images, seed=seed, metrics=["accuracy"], name=name, batch_size=100, invalid="skip",
    )  # fmt: skip
    study = grid.run(options.results / f"compositions_{name}.db")
    for row in study.failed():
        print(f"{row['strategy']}: {row['error']}", file=sys.stderr)
    return {
        row["strategy"]: study.store.predictions(row["key"]).correct
        for row in study.records
        if row["status"] == "done"
    }


def main(given: Sequence[str] | None = None) -> int:
    """Run both rounds and write the winner."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=HERE / "cifar10-train.zip", help="training images")
    add("--number", type=int, default=240, help="compositions that are drawn")
    add("--share", type=float, default=0.5, help="of the GMACs, in the first round")
    add("--finalists", type=int, default=8, help="compositions in the second round")
    add("--images", type=int, nargs=2, default=(2_000, 10_000), help="in the two rounds")
    add("--results", type=Path, default=HERE / "results", help="their folder")
    options = parser.parse_args(given)

    every = dict(compositions(len(load_model("cifar10_vit").blocks)))
    drawn = random.Random(0).sample(sorted(every), min(options.number, len(every)))
    print(f"{len(drawn)} of {len(every)} compositions at {options.share}", flush=True)
    specs = [Spec(name, name, every[name], options.share) for name in drawn]
    found = round_of(specs, options, "first", options.images[0], seed=1)
    answers = {label.rpartition("@")[0]: correct for label, correct in found.items()}
    ranked = sorted(answers, key=lambda name: -answers[name].mean())
    for name in ranked:
        print(f"{100 * answers[name].mean():6.2f}  {name}")

    finalists = [*PUBLISHED, *ranked[: options.finalists]]
    specs = [
        Spec(f"{name}@{share}", name, every[name], share) if name in every else f"{name}@{share}"
        for share in SHARES
        for name in finalists
    ]
    answers = round_of(specs, options, "second", options.images[1], seed=2)
    rows = []
    for label, correct in answers.items():
        name, _, share = label.rpartition("@")
        gap = paired_difference(correct, answers[f"tome@{share}"])
        told = {"composition": name, "share": share, "top1": 100 * correct.mean()}
        ends = {"from_tome": gap.difference, "low": gap.low, "high": gap.high}
        rows.append(told | {end: 100 * value for end, value in ends.items()})
    frame = pd.DataFrame(rows)
    frame.to_csv(options.results / "compositions.csv", index=False, float_format="%.3f")
    print(frame.to_string(index=False))
    means = frame.groupby("composition")["top1"].mean()
    best = str(means[[name for name in means.index if name in every]].idxmax())
    path = options.results / "composition.toml"
    path.write_text(every[best].to_toml(), "utf-8")
    print(f"best: {best}; written to {path}; confirm it with benchmarks/evidence.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
