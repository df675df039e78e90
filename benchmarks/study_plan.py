"""Planning 10,000 cells: time and memory."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor

import torch
from study_clock import Clock, Figures

from tokenred.analysis import Grid


def large_grid(cells: int) -> Grid:
    """α × M × θ × P with this number of distinct cells (a multiple of 1000)."""
    axes = {
        "alpha": [i / 1000 for i in range(1, cells // 1000 + 1)],
        "M": list(range(1, 11)),
        "theta": [0.5 + 0.025 * i for i in range(20)],
        "P": list(range(5)),
    }
    return Grid("gtp", axes, model="digits", data="digits")


def plan(options: argparse.Namespace) -> Figures:
    """Checking and naming all cells, each size in a separate process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        return {f"{n:,} cells": pool.submit(plan_once, n).result() for n in options.cells}


def plan_once(cells: int) -> Figures:
    torch.set_num_threads(1)
    grid = large_grid(cells)
    large_grid(1000).plan()  # imports, and the model
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Clock() as clock:
        made = grid.plan()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(made) == len(made.results) == cells
    return {
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu,
        "cpu_us_a_cell": round(1e6 * clock.cpu / cells, 1),
        "memory_growth_mb": round(grown / 1024, 1),
    }
