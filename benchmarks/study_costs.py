"""Measure a grid's cost besides its forward passes, and the cost of starting a finished one."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from study_clock import Clock, Figures

from tokenred.analysis import Grid
from tokenred.analysis.study.metrics import accuracy
from tokenred.analysis.study.rows import DONE
from tokenred.data import ImageDataset, open_dataset
from tokenred.data.sources import ImageSource


class Again:
    """A source repeated several times."""

    def __init__(self, source: ImageSource, times: int) -> None:
        self.source, self.times = source, times

    def __len__(self) -> int:
        return len(self.source) * self.times

    def name(self, index: int) -> str:
        again, at = divmod(index, len(self.source))
        return f"{self.source.name(at)} {again}"

    def image(self, index: int) -> Image.Image:
        return self.source.image(index % len(self.source))


def repeated(times: int) -> ImageDataset:
    """The bundled digits, repeated several times."""
    digits = open_dataset("digits", split="train")
    source = Again(digits.source, times)
    return ImageDataset(source, digits.labels * times, digits.classes, "digits")


def timed(model: Any, data: Any, context: Any) -> Mapping[str, Any]:
    """Accuracy, and the wall-clock and CPU seconds of the forward passes."""
    spent, began = [0.0, 0.0], (0.0, 0.0)

    def before(*_: object) -> None:
        nonlocal began
        began = time.perf_counter(), time.process_time()

    def after(*_: object) -> None:
        spent[0] += time.perf_counter() - began[0]
        spent[1] += time.process_time() - began[1]

    hooks = [model.register_forward_pre_hook(before), model.register_forward_hook(after)]
    try:
        found = accuracy(model, data, context)
    finally:
        for hook in hooks:
            hook.remove()
    return {**found, "forward_seconds": spent[0], "forward_cpu": spent[1]}


def overhead(options: argparse.Namespace) -> Figures:
    """The share of a run that is not forward passes: planning, loading, images, the store."""
    torch.set_num_threads(1)
    _, (one,) = _run(1, 1)
    # CPU time: on a busy machine even a short cell takes five seconds of wall-clock time.
    times = max(1, round(options.cell_seconds / one["forward_cpu"]))
    clock, records = _run(times, options.overhead_cells)
    forward, cpu = (sum(row[f"forward_{kind}"] for row in records) for kind in ("seconds", "cpu"))
    return {
        "grid": {
            "cells": len(records),
            "images_a_cell": records[0]["images"],
            "forward_seconds_a_cell": round(forward / len(records), 2),
            "forward_cpu_a_cell": round(cpu / len(records), 2),
            "seconds": clock.seconds,
            "overhead": round(1 - forward / clock.seconds, 4),
            "cpu_overhead": round(1 - cpu / clock.cpu, 4),
        }
    }


def _run(times: int, cells: int) -> tuple[Clock, list[Mapping[str, Any]]]:
    alphas = [0.1 + 0.1 * i for i in range(cells)]
    grid = Grid(
        "gtp:P=4", {"alpha": alphas}, model="digits", data=repeated(times), metrics=[timed],
        image_cache=2048,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, Clock() as clock:
        records = grid.run(Path(folder) / "a.db", progress=False).records
    failed = [row["error"] for row in records if row["status"] != DONE]
    assert not failed, failed[0]
    return clock, list(records)


def second(options: argparse.Namespace) -> Figures:
    """Starting a finished grid of 60 cells: a new process, its imports, reading, the table."""
    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "a.db"
        arguments = [
            sys.executable, "-m", "tokenred", "ablate", "--limit", "10", "--store", str(store),
            "--no-progress", "-a", "alpha=0.05,0.1,0.2,0.3,0.4", "-a", "M=4,8",
            "-a", "theta=1.0,0.8", "-a", "P=2,4,6",
        ]  # fmt: skip
        found["first start"] = _start(arguments)
        before = store.read_bytes()
        starts = [_start(arguments) for _ in range(options.starts)]
        # Other work on the machine can only make a start slower.
        found["second start"] = {
            **min(starts, key=lambda start: start["seconds"]),
            "starts": len(starts),
            "slowest": max(start["seconds"] for start in starts),
            "store_unchanged": before == store.read_bytes(),
        }
    return found


def _start(arguments: list[str]) -> Figures:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Clock() as clock:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": clock.seconds, "cpu_seconds": round(cpu, 2)}
