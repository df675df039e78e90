"""What the methods do to real models: ``python benchmarks/evidence.py [SECTION …]``.

``photographs``: a DINOv2 ViT-S/14 with a saliency decoder (``scripts/real_vit.py`` makes the file),
on photographs without labels. How close do features and map stay to those of the dense model?
``tokens``: the same. How alike do tokens become, and on which of them do scorers agree?
``cifar10``: the bundled ViT on CIFAR-10's test images. How many are still classified correctly?

All recipes run at the same shares of the dense model's GMACs. Rows in the stores next to the CSV
files are not measured again, so a stopped run can be continued.
"""

from __future__ import annotations

import argparse
import json
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidence_tables import FILLED, FILLS, FORMS, counted, fills, joined, parts, table
from fidelity import feature_fidelity, map_fidelity
from reporting import write_readme
from scipy import stats
from torch import Tensor, nn

import tokenred as tr
from tokenred.analysis import (
    Grid,
    Spec,
    adaptive_cost,
    paired_difference,
    register_metric,
)  # fmt: skip
from tokenred.analysis.lineup import wrap_spec
from tokenred.analysis.measure.image_costs import is_adaptive
from tokenred.analysis.measure.inputs import batches, open_for
from tokenred.analysis.measure.oversmoothing import mean_cosine
from tokenred.analysis.measure.timing import resize
from tokenred.models import load_model
from tokenred.reduced.kept import KeptTokens
from tokenred.reduced.wrap import dense
from tokenred.strategies.strategy import Strategy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "scripts"))
PAGE = HERE.parent / "docs" / "results.md"
SHARES = (0.7, 0.5, 0.85)  # in the order in which they run
SMOOTHED = ("gtp", "gtp:theta=0.6", "gtp:fuser=prune", "random", "topk", "evit", "tome", "mctf")
SCORERS = ("gtp", "gtp:scorer=DiagAttn", "gtp:scorer=BroadAttn", "topk", "tome", "random")
REFUSED = (tr.errors.ConfigError, tr.errors.ScheduleError)
TIMED = tuple(f"{name}{end}" for name in ("speedup", "realised") for end in ("", "_low", "_high"))
SIZE = 224
FIGURES = ("correlation", "error", "iou", "cls", "mean", "patches", "alike")


def specs(base: nn.Module, options: argparse.Namespace, section: str) -> Iterator[Spec]:
    """Every recipe at every budget; adaptive recipes are fitted to images, once."""
    every = [form for name in tr.list_strategies() for form in FORMS.get(name, (name,))]
    names = [*(options.methods or every), *options.also]
    known = options.results / f"evidence_{tag(section, options)}_fitted.json"
    kept = json.loads(known.read_text("utf-8")) if known.exists() else {}
    for share in options.shares:
        for name in names:
            label = f"{name}@{share:g}"
            if label not in kept:
                try:
                    wrap_spec(base, tr.analysis.parse_spec(label))
                except REFUSED:
                    found = fitted(base, name, share, section, options)
                    kept[label] = "" if found is None else found.to_toml()
                    known.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
            if kept.get(label) == "":
                print(f"{label}: left out, it cannot cost as little", file=sys.stderr)
            elif label in kept:
                yield Spec(label, name, Strategy.from_toml(kept[label]))
            else:
                yield tr.analysis.parse_spec(label)


def fitted(
    base: nn.Module, name: str, share: float, section: str, options: argparse.Namespace
) -> Strategy | None:
    """A method that costs at most a share of the dense model's GMACs on average; None if none."""
    images = some_images(base, options.fit_on or getattr(options, section), options.fit)
    info, plain = dense(base).info, tr.analysis.parse_spec(name).strategy
    stages = len({info.depth * at // 4 for at in (1, 2, 3)})
    dials: dict[str, list[dict[str, Any]]] = {  # cheapest first
        "ats": [{"max_tokens": n} for n in range(4, info.num_patches + 1, 4)],
        "algm": [{"threshold": at / 20 - 1} for at in range(41)],
        "cubistmerge": [
            {f"{lines}_removed": spread(n - n // 2 if lines == "rows" else n // 2, stages)
             for lines in ("rows", "columns")}
            for n in range(2 * max(info.grid), -1, -1)
        ],
    }  # fmt: skip
    # Calibration does not meet its target exactly.
    calibrated = [{"share": share * (1 + at / 20)} for at in range(-6, 3)]

    @cache
    def at(place: int) -> Strategy:
        if plain.selector.calibration_passes:
            return tr.calibrate(base, name, images, progress=False, **calibrated[place])
        return tr.strategy(name, **dials[name][place])

    def too_dear(place: int) -> bool:
        try:
            model = tr.wrap(base, at(place))
        except REFUSED:  # more than can be removed
            return False
        cost = adaptive_cost(model, images).mean_gmacs if is_adaptive(model) else tr.gmacs(model)
        return cost > share * tr.gmacs(base)

    if name not in dials and not plain.selector.calibration_passes:
        return None
    places = range(len(dials.get(name, calibrated)))
    fitting = bisect_left(places, True, key=too_dear)
    with suppress(*REFUSED):
        return at(fitting - 1) if fitting else None
    return None


def tag(section: str, options: argparse.Namespace) -> str:
    """A section, with the size of its images if that is not the usual one."""
    usual = section == "cifar10" or options.size == SIZE
    return section if usual else f"{section}_{options.size}"


def spread(total: int, places: int) -> list[int]:
    return [total // places + (at < total % places) for at in range(places)]


@cache
def some_images(base: nn.Module, data: Path, count: int) -> Tensor:
    stream, _ = batches(open_for(base, data), batch_size=count, workers=0, limit=count, seed=1)
    return next(stream)[0]


# ------------------------------------------------------------------------------ photographs


def photographs(options: argparse.Namespace) -> pd.DataFrame:
    """A DINOv2 ViT-S/14 and a saliency decoder, on photographs without labels."""
    from real_vit import read_decoder

    decoder = read_decoder(options.model)
    known: list[tuple[KeptTokens, Tensor]] = []

    def fidelity(
        model: tr.ReducedViT, data: Any, context: Any, *, fills: tuple[str, ...] = ("last",)
    ) -> dict[str, list[float]]:
        """Figures of each image; the dense model's results are kept from cell to cell."""
        found: dict[str, list[float]] = {}
        stream, _ = batches(
            data, batch_size=context.batch_size, workers=0, limit=None, seed=context.seed
        )
        for at, (images, _, _) in enumerate(stream):
            if at == len(known):
                tokens = dense(model.base).kept_tokens(images)
                known.append((tokens, decoder(tokens.dense())))
            tokens, wanted = known[at]
            own = model.kept_tokens(images, owners=True)
            figures = feature_fidelity(own, tokens)
            figures["alike"] = mean_cosine(own.tokens, own.alive)
            for fill in fills:
                of_map = map_fidelity(decoder(own.dense(fill)), wanted)
                figures |= {f"{fill}_{name}": values for name, values in of_map.items()}
            for name, values in figures.items():
                found.setdefault(name, []).extend(values.tolist())
        return found

    register_metric("fidelity", version=1)(fidelity)
    base = load_model(options.model)
    resize(base, (options.size, options.size))
    listed = list(specs(base, options, "photographs"))
    common: dict[str, Any] = {
        "model": str(options.model), "data": str(options.photographs), "image_size": options.size,
        "limit": options.limit, "batch_size": 10, "name": "photographs",
    }  # fmt: skip
    rows, records = [], []
    for ways in (FILLS, ("last",)):
        chosen = [
            spec for spec in listed
            if (spec.label.partition("@")[0] in FILLED) == (ways == FILLS)
        ]  # fmt: skip
        cells = [{"base": "dense"}] * (ways != FILLS) + [{"base": spec} for spec in chosen]
        if not cells:
            continue
        metrics = [{"name": "fidelity", "fills": ways}, "mean_cost"]
        study = Grid(cells=cells, metrics=metrics, invalid="skip", **common).run(
            options.results / "evidence_photographs.db"
        )
        records += [r for r in study.records if r["status"] == "done"]
        for row in study.failed():
            print(f"{row['strategy']}: {row['error']}", file=sys.stderr)
    by_name = {row["strategy"]: row for row in records}
    for label, row in by_name.items():
        name, _, share = label.partition("@")
        for fill in (fill for fill in FILLS if f"{fill}_error" in row):
            told = {"method": name, "share": share, "fill": fill, "images": len(row["cls"])}
            told |= costs(row, by_name["dense"])
            for figure in FIGURES:
                told |= with_interval(figure, row.get(f"{fill}_{figure}", row.get(figure)))
            rival = by_name.get(f"gtp@{share}")
            if rival is not None and (rival is not row or fill != "last"):
                gap = np.subtract(row[f"{fill}_correlation"], rival["last_correlation"])
                told |= with_interval("from_gtp", gap)
            rows.append(told)
    return pd.DataFrame(rows)


def costs(row: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, float]:
    """GMACs, and the overhead that is not in them, as shares of the dense model's GMACs."""
    spent = {
        "cost": row.get("mean_gmacs", row["gmacs"]),
        "overhead": row.get("mean_overhead_gmacs", row["overhead_gmacs"]),
    }
    return {name: value / whole["gmacs"] for name, value in spent.items() if value is not None}


def with_interval(name: str, values: Any) -> dict[str, float]:
    """The mean over the images that have the figure, and its 95% bootstrap interval."""
    known = np.array(values)[np.isfinite(values)]
    if len(known) < 2:
        return {}
    low = high = mean = float(known.mean())
    if np.ptp(known):
        found = stats.bootstrap((known,), np.mean, n_resamples=2000,
                                random_state=np.random.default_rng(0))  # fmt: skip
        low, high = map(float, found.confidence_interval)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


# --------------------------------------------------------------------------- tokens and scores


def tokens(options: argparse.Namespace) -> pd.DataFrame:
    """How alike the tokens of the DINOv2 model become, and what its scorers agree on."""
    base = load_model(options.model)
    resize(base, (options.size, options.size))
    data, limit = str(options.photographs), options.limit
    kept = tr.analysis.agreement(base, data, SCORERS, removed=8, limit=limit).frame
    last = kept[(kept["layer"] == kept["layer"].max()) & (kept["statistic"] == "iou")]
    print(last[["a", "b", "mean", "low", "high", "chance"]].to_string(index=False))
    last.to_csv(options.results / "evidence_agreement.csv", index=False, float_format="%.5f")
    graphs = tr.analysis.graph_statistics(tr.wrap(base, "gtp"), data, limit=limit)
    print(graphs)
    graphs.to_csv(options.results / "evidence_graphs.csv", overwrite=True)
    count, rows = len(open_for(base, options.photographs)), []
    for share in options.shares:
        found = tr.analysis.oversmoothing(base, data, SMOOTHED, gmacs_share=share, limit=limit)
        frame = found.frame
        for method, own in frame.groupby("strategy", sort=False):
            if method == "dense" and rows:
                continue
            told = {"method": method, "share": "" if method == "dense" else f"{share:g}"}
            gone = own[(own["statistic"] == "lost") & (own["removed"] > 0)]
            told |= {"tokens": own["tokens"].iloc[-1], "images": min(limit or count, count)}
            told["cost"] = own["gmacs"].iloc[0] / frame["gmacs"].iloc[0]
            if len(gone):
                told["lost"] = 100 * np.average(gone["mean"], weights=gone["removed"])
            last = own[(own["layer"] == own["layer"].max()) & (own["statistic"] != "lost")]
            for row in last.to_dict("records"):
                name = row["statistic"]
                told |= {name: row["mean"]} | {f"{name}{e}": row[e[1:]] for e in ("_low", "_high")}
                gap = {e: row[f"difference{e}"] for e in ("", "_low", "_high")}
                told |= {f"{name}_from_dense{e}": value for e, value in gap.items()}
            rows.append(told)
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------- CIFAR-10


def cifar10(options: argparse.Namespace) -> pd.DataFrame:
    """The bundled ViT on CIFAR-10: top-1, and what changed."""
    base = load_model("cifar10_vit")
    listed = list(specs(base, options, "cifar10"))
    common: dict[str, Any] = {
        "cells": [{"base": "dense"}, *({"base": spec} for spec in listed)], "invalid": "skip",
        "model": "cifar10_vit", "batch_size": 100, "name": "cifar10",
    }  # fmt: skip
    grid = Grid(
        data=str(options.cifar10), limit=options.limit, metrics=["accuracy", "mean_cost"],
        against="dense", **common,
    )  # fmt: skip
    study = grid.run(options.results / "evidence_cifar10.db")
    timed: dict[str, dict[str, Any]] = {}
    if options.speed:
        timings = Grid(metrics=[{"name": "speed", "pairs": options.speed, "warmup": 1}], **common)
        speeds = timings.run(options.results / "evidence_cifar10_speed.db", on_error="raise")
        timed = {row["strategy"]: row for row in speeds.records if row["status"] == "done"}
    done = {r["strategy"]: r for r in study.records if r["status"] == "done"}
    answers = {label: study.store.predictions(row["key"]) for label, row in done.items()}
    rows = []
    for label, row in done.items():
        name, _, share = label.partition("@")
        told = {"method": name, "share": share, "images": row["images"], "top1": row["top1"]}
        told |= costs(row, done["dense"])
        told |= {name: timed[label][name] for name in TIMED if label in timed}
        own, whole = answers[label], answers["dense"]
        told["agreement"] = 100 * float((own.prediction == whole.prediction).mean())
        rivals = {"from_dense": whole, "from_gtp": answers.get(f"gtp@{share}")} if share else {}
        for which, rival in rivals.items():
            if rival is not None and rival is not own:
                gap = paired_difference(own.correct, rival.correct)
                ends = {"": gap.difference, "_low": gap.low, "_high": gap.high}
                told |= {f"{which}{end}": 100 * value for end, value in ends.items()}
        rows.append(told)
    return pd.DataFrame(rows)


SECTIONS: dict[str, tuple[Callable[[argparse.Namespace], pd.DataFrame], str, dict[str, Any]]] = {
    "photographs": (photographs, "correlation", {
        "correlation [95%]": ("correlation", 3),
        "difference from `gtp` [95%]": ("from_gtp", 3, True),
        "error": ("error", 3, False, False), "IoU": ("iou", 3, False, False),
        "CLS [95%]": ("cls", 3), "mean token": ("mean", 3, False, False),
        "patches": ("patches", 3, False, False), "token similarity": ("alike", 3, False, False),
    }),
    "tokens": (tokens, "cosine", {
        "cosine similarity [95%]": ("cosine", 3),
        "difference from dense [95%]": ("cosine_from_dense", 4, True),
        "effective rank": ("effective_rank", 1, False, False),
        "outside the mean": ("high_frequency", 3), "removed tokens lost (%)": ("lost", 1),
        "tokens": ("tokens", 0),
    }),
    "cifar10": (cifar10, "top1", {
        "top-1 (%)": ("top1", 2), "difference from dense (points) [95%]": ("from_dense", 1, True),
        "difference from `gtp` (points) [95%]": ("from_gtp", 1, True),
        "agreement with dense (%)": ("agreement", 1),
        "speed-up [90%]": ("speedup", 2), "realised": ("realised", 2, False, False),
    }),
}  # fmt: skip


def main(given: Sequence[str] | None = None) -> int:
    """Run sections; return 0, or 2 for invalid arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; by default all")
    add("--model", type=Path, default=HERE / "real_vit.safetensors", help="model for photographs")
    add("--photographs", type=Path, default=HERE / "photographs", help="folder or archive")
    add("--cifar10", type=Path, default=HERE / "cifar10-test.zip", help="folder or archive")
    add("--fit-on", type=Path, help="images to fit thresholds on; by default the section's")
    add("--fit", type=int, default=32, help="number of images to fit thresholds on")
    add("--limit", type=int, help="number of images")
    add("--size", type=int, default=SIZE, help="side of the photographs, in pixels")
    add("--speed", type=int, default=0, metavar="PAIRS",
        help="also time the models of cifar10 so often, on a quiet machine")  # fmt: skip
    add("--shares", type=float, nargs="+", default=SHARES, help="shares of the dense model's GMACs")
    add("--results", type=Path, default=HERE / "results", help="folder of the results")
    add("--methods", nargs="+", help="only these, as `tokenred compare` takes them, or .toml files")
    add("--also", nargs="+", default=[], help="additional methods")
    add("--keep", action="store_true", help="keep the CSV's rows of other methods and budgets")
    add("--docs", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(given)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    for name in options.sections or SECTIONS:
        images = options.cifar10 if name == "cifar10" else options.photographs
        needed = [images, *[options.model] * (name != "cifar10")]
        if absent := [path for path in needed if not path.exists()]:
            print(f"{name}: left out, {absent[0]} not found; see docs/results.md", flush=True)
            continue
        measure, by, columns = SECTIONS[name]
        frame = measure(options)
        called = tag(name, options)
        path = options.results / f"evidence_{called}.csv"
        if options.keep and path.exists():
            frame = joined(frame, pd.read_csv(path, dtype={"share": str}))
        frame.to_csv(path, index=False, float_format="%.5f")
        text = f"{counted(frame)}\n\n{table(frame, by, columns)}"
        print(text, flush=True)
        if options.docs:
            write_readme(PAGE, called, text)
            if "from_gtp" in frame and called in SECTIONS:
                write_readme(PAGE, f"{called}-parts", parts(frame, 3 if "fill" in frame else 1))
            if called == "photographs":
                write_readme(PAGE, "fills", fills(frame))
    return 0


if __name__ == "__main__":
    sys.exit(main())
