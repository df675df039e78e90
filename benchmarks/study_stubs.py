"""Cells that compute nothing: the writer and Ray at full speed."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study_clock import Clock, Figures

from tokenred.analysis import Store
from tokenred.analysis.measure.accuracy import Evaluation
from tokenred.analysis.study.cell import Cell, Outcome, outcome
from tokenred.analysis.study.engines import Ray
from tokenred.analysis.study.rows import DONE, pack_predictions
from tokenred.strategies.strategy import Strategy

WORKERS = 8


def stored(key: str, packed: Any = None) -> dict[str, Any]:
    """A row as a grid writes it."""
    return {
        "key": key, "study": "writer", "axes": {"alpha": 0.1, "M": 8}, "strategy": "gtp",
        "method": "gtp", "config": "{}", "fingerprint": key, "model": "digits", "weights": "w",
        "data": "digits", "limit": 1000, "seed": 0, "dtype": "float32", "batch_size": 64,
        "gmacs": 1.5, "top1": 90.0, "status": DONE, "error": "", "traceback": "",
        "attempts": 1, "seconds": 0.5, "engine": "ray", "torch": "2",
        "commit": "", "created": "now", "packed": packed,
    }  # fmt: skip


def writer(options: argparse.Namespace) -> Figures:
    """Rows per second into a store on disk."""
    ranks = np.random.default_rng(0).integers(0, 3, 1000)
    labels = np.arange(1000) % 10
    evaluation = Evaluation(labels, labels, labels, ranks, 10, (), 0.0)
    found: Figures = {}
    for images in (0, len(labels)):
        for batch in (1, 100):
            packed = pack_predictions(evaluation) if images else None
            rows = options.rows if batch > 1 else options.rows // 4
            with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.db") as store:
                with store.writing(), Clock() as clock:
                    for at in range(0, rows, batch):
                        store.write([stored(f"k{i}", packed) for i in range(at, at + batch)])
                assert len(store) == rows
            name = f"{batch} a transaction, predictions of {images} images"
            found[name] = {"rows_a_second": round(rows / clock.seconds)}
    return found


class Stub:
    """Returns results immediately."""

    def __call__(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        for cell in cells:
            yield outcome(cell.key, DONE, answer=int(cell.key) ** 2, process=os.getpid())


def ray_stubs(options: argparse.Namespace) -> Figures:
    """8 workers of Ray send results of stub cells, through the engine into a store."""
    count, strategy = options.stubs, Strategy.dense()
    cells = [Cell(i, {}, "", "", 0, strategy, "", str(i)) for i in range(count)]
    processes, batches = set(), 0
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.db") as store:
        with store.writing(), Clock() as clock:
            # The stub is pickled by value, since workers cannot import this module.
            for outcomes in Ray(workers=WORKERS).run(Stub(), cells):
                rows, batches = [], batches + 1
                for each in outcomes:
                    assert each["answer"] == int(each["key"]) ** 2
                    processes.add(each["process"])
                    rows.append(stored(each["key"]))
                store.write(rows)
        there = store.status([str(i) for i in range(count)])
        rows_there = len(store)
    return {
        f"{WORKERS} workers": {
            "cells": count,
            "rows": rows_there,
            "lost": count - len(there),
            "writes": batches,
            "workers_that_worked": len(processes),
            "seconds": clock.seconds,
            "rows_a_second": round(count / clock.seconds),
        }
    }
