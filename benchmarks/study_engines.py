"""Compare the rows of 60 cells between engines."""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from study_clock import Clock, Figures

from tokenred.analysis import Grid, Study
from tokenred.analysis.study.rows import DONE
from tokenred.core.files import write_whole

AXES = {"alpha": [0.05, 0.1, 0.2, 0.4, 0.8], "M": [4, 8], "theta": [1.0, 0.8, 0.6], "P": [3, 6]}
SAME = ("gmacs", "overhead_gmacs", "top1", "top5")
ENGINES: dict[str, Figures] = {
    "serial": {"threads": 1},
    "serial, all threads": {"threads": os.cpu_count()},
    "processes": {"engine": "processes", "workers": 2, "threads": 1},
    "executor": {},
    "ray": {"engine": "ray", "workers": 2, "threads": 1},
}


def engines(options: argparse.Namespace) -> Figures:
    """α × M × θ × P on every engine; the largest difference from the first."""
    grid = Grid("gtp", AXES, model=options.model, data=options.data, limit=options.limit)
    assert len(grid) == 60
    found: Figures = {}
    reference: Study | None = None
    for name, study, seconds in _studies(grid, options):
        rows = study.records
        assert [row["status"] for row in rows] == [DONE] * len(grid)
        reference = reference or study
        label = f"{rows[0]['model']}, {rows[0]['images']:,} images, {name}"
        found[label] = {
            "rows": len(rows),
            **({} if seconds is None else {"seconds": seconds}),
            "cell_seconds": round(sum(row["seconds"] for row in rows), 1),
            "lowest_top1": round(min(row["top1"] for row in rows), 2),
            "highest_top1": round(max(row["top1"] for row in rows), 2),
            **({} if study is reference else _compared(study, reference)),
        }
    if options.csv is not None and reference is not None:
        _write(reference, options.csv)
    return found


def _studies(grid: Grid, options: argparse.Namespace) -> Iterator[tuple[str, Study, float | None]]:
    """The study of each engine, and its seconds; None if its store may have had cells already."""
    spawn = multiprocessing.get_context("spawn")
    for name in options.engine or ENGINES:
        # A separate pool, so that idle workers hold no memory while the next engine runs.
        with ProcessPoolExecutor(2, mp_context=spawn) as pool, Clock() as clock:
            chosen = {"engine": pool} if name == "executor" else ENGINES[name]
            study = grid.run(_store(name, options), progress=False, **chosen)
        yield name, study, None if options.stores else clock.seconds


def _store(name: str, options: argparse.Namespace) -> Path | None:
    """The store of an engine; None to keep it in memory."""
    if options.stores is None:
        return None
    options.stores.mkdir(parents=True, exist_ok=True)
    return Path(options.stores) / f"{name.replace(', ', '-').replace(' ', '-')}.db"


def _compared(study: Study, reference: Study) -> Figures:
    pairs = list(zip(study.records, reference.records, strict=True))
    assert all(a["key"] == b["key"] and a["tokens"] == b["tokens"] for a, b in pairs)
    return {
        "largest_difference": max(abs(a[name] - b[name]) for a, b in pairs for name in SAME),
        "predictions_that_differ": sum(
            int(np.sum(_ranks(study, a) != _ranks(reference, b))) for a, b in pairs
        ),
    }


def _ranks(study: Study, row: Mapping[str, Any]) -> Any:
    return study.store.predictions(row["key"]).rank


def _write(study: Study, path: Path) -> None:
    """The cells as a small table."""
    frame = study.frame[[*AXES, "strategy", "gmacs", "top1", "top5", "images"]]
    write_whole(path, lambda place: frame.to_csv(place, index=False, float_format="%.6g"))
