"""What a study costs besides its forward passes, and whether engines agree.

    python benchmarks/study.py                        # all sections
    python benchmarks/study.py plan writer --out study.json
    python benchmarks/study.py engines --model weights.safetensors --data cifar10:PATH --limit 1000

Sections: ``plan`` (100,000 cells: time and memory), ``writer`` (rows a second), ``overhead`` (what
is not forward passes, on cells of five seconds), ``second`` (the start of a finished grid),
``actors`` (8 Ray actors send the results of 100,000 stub cells), ``engines`` (60 cells on every
engine, compared). Other work on the machine makes the figures worse; CPU time suffers less.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenred.analysis.measure.accuracy.evaluating import Evaluation
from tokenred.analysis.measure.machine import describe_machine
from tokenred.analysis.study.cell import DONE, Outcome, Setting, StoredRow, Task
from tokenred.analysis.study.engines.ray import Ray
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.metrics import accuracy
from tokenred.analysis.study.packing import pack_predictions
from tokenred.analysis.study.store import Store
from tokenred.core.files import write_whole
from tokenred.core.plan import Strategy
from tokenred.data import ImageDataset, open_dataset

Figures = dict[str, Any]
OPTIONS = argparse.Namespace()
SAME = ("gmacs", "overhead_gmacs", "top1", "top5")


class Clock:
    """Wall-clock and CPU seconds of a block."""

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = round(time.perf_counter() - self._start[0], 3)
        self.cpu = round(time.process_time() - self._start[1], 3)


# ------------------------------------------------------------------- planning


def large_grid(cells: int) -> Grid:
    """α × M × θ × P, so many cells (a multiple of 4000), all different."""
    axes = {
        "alpha": [i / 1000 for i in range(1, cells // 4000 + 1)],
        "M": list(range(1, 26)),
        "theta": [0.5 + 0.025 * i for i in range(20)],
        "P": list(range(8)),
    }
    return Grid("gtp", axes, model="digits", data="digits")


def plan() -> Figures:
    """In processes of their own, so that memory is that of one plan."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        return {f"{n:,} cells": pool.submit(plan_once, n).result() for n in OPTIONS.cells}


def plan_once(cells: int) -> Figures:
    torch.set_num_threads(1)
    grid = large_grid(cells)
    large_grid(4000).plan()  # imports, and the model
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Clock() as clock:
        made = grid.plan()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(made) == made.results == cells
    return {
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu,
        "cpu_us_a_cell": round(1e6 * clock.cpu / cells, 1),
        "memory_growth_mb": round(grown / 1024, 1),
    }


# -------------------------------------------------------------------- writing


def stored(key: str, packed: Any = None) -> StoredRow:
    columns = {
        "key": key, "study": "writer", "axes": '{"alpha": 0.1, "M": 8}', "strategy": "gtp",
        "method": "gtp", "config": "{}", "fingerprint": key, "model": "digits", "weights": "w",
        "data": "digits", "image_limit": 1000, "seed": 0, "dtype": "float32", "batch_size": 64,
        "metrics": '{"gmacs": 1.5, "top1": 90.0}', "status": DONE, "error": "", "traceback": "",
        "attempts": 1, "seconds": 0.5, "engine": "ray", "machine": '{"torch": "2"}',
        "git_commit": "", "created": "now",
    }  # fmt: skip
    return StoredRow(columns, packed)


def writer() -> Figures:
    """Rows a second into a store on disk."""
    ranks = np.random.default_rng(0).integers(0, 3, 1000)
    labels = np.arange(1000) % 10
    found: Figures = {}
    for images in (0, 1000):
        for batch in (1, 100):
            rows = 20_000 if batch > 1 else 5_000
            evaluation = Evaluation(labels, labels, labels, ranks, 10, (), 0.0)
            packed = pack_predictions(evaluation) if images else None
            with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.db") as store:
                with store.writing(), Clock() as clock:
                    for at in range(0, rows, batch):
                        store.write([stored(f"k{i}", packed) for i in range(at, at + batch)])
                assert len(store) == rows
            name = f"{batch} a transaction, predictions of {images} images"
            found[name] = {"rows_a_second": round(rows / clock.seconds)}
    return found


# ------------------------------------------------------------------- overhead


class Repeated(ImageDataset):
    """The embedded digits so many times over."""

    def __init__(self, times: int) -> None:
        digits = open_dataset("digits", split="train")
        super().__init__(digits.source, digits.labels, digits.classes, "digits")
        self.labels = digits.labels * times
        self._count = len(digits)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image, label, _ = super().__getitem__(index % self._count)
        return image, label, index

    def name_of(self, index: int) -> str:
        return f"{super().name_of(index % self._count)} {index // self._count}"


def timed(model: Any, data: Any, context: Any) -> Mapping[str, Any]:
    """Accuracy, and the seconds that the forward passes took."""
    spent, began = 0.0, 0.0

    def before(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(*_: object) -> None:
        nonlocal spent
        spent += time.perf_counter() - began

    hooks = [model.register_forward_pre_hook(before), model.register_forward_hook(after)]
    try:
        return {**accuracy(model, data, context), "forward_seconds": spent}
    finally:
        for hook in hooks:
            hook.remove()


def overhead() -> Figures:
    """The share of the run that is not forward passes, with images decoded by the first cell."""

    def run(times: int, cells: int) -> tuple[float, list[float]]:
        alphas = [0.1 + 0.1 * i for i in range(cells)]
        grid = Grid(
            "gtp:P=4", {"alpha": alphas}, model="digits", data=Repeated(times), metrics=[timed],
            image_cache=2048,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder, Clock() as clock:
            records = grid.run(Path(folder) / "a.db", progress=False).records
        assert all(row["status"] == DONE for row in records)
        return clock.seconds, [row["forward_seconds"] for row in records]

    _, (one,) = run(1, 1)
    times = max(1, round(OPTIONS.cell_seconds / one))
    seconds, forwards = run(times, OPTIONS.overhead_cells)
    return {
        "grid": {
            "cells": len(forwards),
            "images_a_cell": 1437 * times,
            "forward_seconds_a_cell": round(sum(forwards) / len(forwards), 2),
            "seconds": seconds,
            "overhead": round(1 - sum(forwards) / seconds, 4),
        }
    }


# --------------------------------------------------------------- second start


def second() -> Figures:
    """Imports, planning, reading and the table, in a new process; nothing is computed."""
    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            sys.executable, "-m", "tokenred", "ablate", "--limit", "10", "--store",
            f"{folder}/a.db", "--no-progress", "-a", "alpha=0.05,0.1,0.2,0.3,0.4",
            "-a", "M=4,8", "-a", "theta=1.0,0.8", "-a", "P=2,4,6",
        ]  # fmt: skip
        for name in ("first start", "second start"):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with Clock() as clock:
                subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found[name] = {"seconds": clock.seconds, "cpu_seconds": round(cpu, 2)}
    return found


# --------------------------------------------------------------------- actors


class Stub:
    """Answers at once."""

    def __call__(self, task: Task) -> Outcome:
        number = int(task.key)
        return Outcome(task.key, DONE, {"answer": number * number, "process": os.getpid()})


def actors() -> Figures:
    """Through the engine into a store, as a grid does it."""
    count, setting = OPTIONS.stubs, Setting(0, 0, None, None, 0)
    tasks = (Task(str(i), Strategy("Random"), setting) for i in range(count))
    processes = set()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.db") as store:
        with store.writing(), Clock() as clock:
            for outcomes in Ray(workers=8).run(Stub(), tasks, set()):
                rows = []
                for outcome in outcomes:
                    assert outcome.metrics["answer"] == int(outcome.key) ** 2
                    processes.add(outcome.metrics["process"])
                    rows.append(stored(outcome.key))
                store.write(rows)
        lost = count - len(store)
        different = len(set(store.status([str(i) for i in range(count)])))
    assert different == count, f"{count - different} lost"
    return {
        "8 actors": {
            "cells": count,
            "lost": lost,
            "actors_that_worked": len(processes),
            "seconds": clock.seconds,
            "rows_a_second": round(count / clock.seconds),
        }
    }


# -------------------------------------------------------------------- engines


def engines() -> Figures:
    """α × M × θ × P, 60 cells, on every engine; the largest difference from in-process."""
    axes = {
        "alpha": [0.05, 0.1, 0.2, 0.4, 0.8],
        "M": [4, 8],
        "theta": [1.0, 0.8, 0.6],
        "P": [3, 6],
    }
    grid = Grid("gtp", axes, model=OPTIONS.model, data=OPTIONS.data, limit=OPTIONS.limit)
    assert len(grid) == 60
    found: Figures = {}
    reference = None
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as executor:
        for name, options in every_engine(executor):
            with Clock() as clock:
                study = grid.run(progress=False, **options)
            assert [row["status"] for row in study.records] == [DONE] * 60
            reference = reference or study
            figures: Figures = {"seconds": clock.seconds, "rows": len(study.records)}
            pairs = list(zip(study.records, reference.records, strict=True))
            assert all(a["key"] == b["key"] for a, b in pairs)
            figures["largest_difference"] = max(
                abs(a[column] - b[column]) for a, b in pairs for column in SAME
            )
            figures["predictions_that_differ"] = sum(
                int(np.sum(predicted(study, a) != predicted(reference, b))) for a, b in pairs
            )
            found[name] = figures
    return found


def every_engine(executor: Any) -> Iterator[tuple[str, Figures]]:
    yield "serial, 1 thread", {"threads": 1}
    yield "serial, all threads", {"threads": os.cpu_count()}
    yield "processes", {"engine": "processes", "workers": 2, "threads": 1}
    yield "executor", {"engine": executor}
    yield "ray", {"engine": "ray", "workers": 2, "threads": 1}


def predicted(study: Any, row: Mapping[str, Any]) -> Any:
    return study.store.predictions(row["key"]).rank


# -------------------------------------------------------------------- command


SECTIONS: dict[str, Callable[[], Figures]] = {
    "plan": plan,
    "writer": writer,
    "overhead": overhead,
    "second": second,
    "actors": actors,
    "engines": engines,
}


def show(section: str, figures: Figures) -> None:
    print(f"\n{section}: {(SECTIONS[section].__doc__ or '').strip()}")
    for name, values in figures.items():
        told = "  ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in values.items())
        print(f"  {name:<48} {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    add("--cells", type=int, nargs="+", default=[4_000, 20_000, 100_000], help="of plan")
    add("--cell-seconds", type=float, default=5.0, help="of overhead")
    add("--overhead-cells", type=int, default=4)
    add("--stubs", type=int, default=100_000, help="cells of actors")
    add("--model", default="digits", help="of engines")
    add("--data", default="digits", help="of engines")
    add("--limit", type=int, help="images of engines")
    add("--out", type=Path, help="a JSON file")
    parser.parse_args(namespace=OPTIONS)
    if unknown := set(OPTIONS.sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    found: Figures = {"machine": {**describe_machine(), "load": os.getloadavg()[0]}}
    for section in OPTIONS.sections or SECTIONS:
        found[section] = SECTIONS[section]()
        show(section, found[section])
        if OPTIONS.out is not None:
            text = json.dumps(found, indent=2)
            write_whole(OPTIONS.out, lambda place, text=text: place.write_text(text))


if __name__ == "__main__":
    main()
