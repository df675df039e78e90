"""Which cells of a sweep can run at all, and what they cost: known before anything is timed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from tokenred.analysis.measure.candidates import build_model, image_shape_of, resize
from tokenred.analysis.measure.machine import check_device
from tokenred.analysis.sweeps.cells import Cell
from tokenred.core.errors import TokenredError
from tokenred.reduced.api import gmacs
from tokenred.reduced.wrap import wrap

__all__ = ["Plan", "make_plan"]

_COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True)
class Plan:
    """What a sweep will do.

    Attributes:
        cells: those that can run, each once, with their image size filled in.
        weights: GMACs of one pair of runs of each, for the time that is left.
        refused: those that cannot, and why.
    """

    cells: tuple[Cell, ...]
    weights: tuple[float, ...]
    refused: tuple[tuple[Cell, str], ...]


def make_plan(cells: Sequence[Cell], *, memory: bool = False) -> Plan:
    """Build every model and wrap it with every strategy, and run none.

    Args:
        cells: from `grid`.
        memory: whether peak memory is to be measured as well.

    Raises:
        UnknownNameError: for a model that timm does not have.
        CheckpointError: if the file is not a checkpoint.
    """
    found: dict[Cell, float] = {}
    refused: list[tuple[Cell, str]] = []
    for name in dict.fromkeys(cell.model for cell in cells):
        model = build_model(name)
        own = image_shape_of(model)[1:] if hasattr(model, "patch_embed") else None
        costs: dict[object, float] = {}
        for cell in (cell for cell in cells if cell.model == name):
            full = replace(cell, image_size=cell.image_size or own)
            try:
                same = (full.image_size, full.spec)
                if same not in costs:
                    costs[same] = _pair_gmacs(model, full)
                reason = _missing(full, memory)
            except TokenredError as error:
                reason = " ".join(str(error).split())
            if reason:
                refused.append((full, reason))
            else:
                found.setdefault(full, full.batch_size * costs[same])
    return Plan(tuple(found), tuple(found.values()), tuple(refused))


def _pair_gmacs(model: nn.Module, cell: Cell) -> float:
    """GMACs of an image, dense and reduced; raises where that model or strategy cannot be."""
    if cell.image_size is not None:
        resize(model, cell.image_size)
    cost = gmacs(model)
    reduced = wrap(model, cell.spec.resolve(cost))
    return cost + gmacs(reduced)


def _missing(cell: Cell, memory: bool) -> str:
    """What this machine lacks for a cell; empty where nothing is missing."""
    device = check_device(cell.device)
    assert device is not None
    if device.type == "cpu" and cell.compile and not any(map(shutil.which, _COMPILERS)):
        return "torch.compile needs a C++ compiler for the CPU, and none is on the path."
    if device.type not in ("cpu", "cuda") and memory:
        return f"peak memory can be measured on cpu and cuda, not on {device.type}."
    return ""
