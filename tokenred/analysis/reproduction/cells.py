"""Running the cells of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenred.analysis.reproduction.experiments import Experiment
from tokenred.analysis.reproduction.points import Point
from tokenred.analysis.reproduction.stands import Stand
from tokenred.analysis.study.grid import Grid

__all__ = ["Record", "Settings", "run_points"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """How everything is run.

    Attributes:
        store: of the results; None where only GMACs are asked for.
        data: the images, or None.
        limit: at most so many.
        images: how many there are, or None.
        metrics: of the grids.
        options: further arguments of `tokenred.analysis.Grid`.
        retry_failed, progress: of its ``run``.
    """

    store: Path | None
    data: Any
    limit: int | None
    images: int | None
    metrics: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    progress: bool = True


def run_points(
    experiment: Experiment, stand: Stand, points: Sequence[Point], settings: Settings
) -> tuple[tuple[Record, ...], ...]:
    """Run what is not in the store yet.

    Returns:
        For each point the rows of its cells, in order.

    Raises:
        CheckpointError: for weights that cannot be had.
        TokenredError: as `tokenred.analysis.Grid` raises them.
    """
    cells = [cell for point in points for cell in point.cells]
    if not cells:
        return tuple(() for _ in points)
    grid = Grid(
        cells=cells,
        model=stand.model,
        data=settings.data,
        limit=settings.limit,
        metrics=settings.metrics,
        against="dense" if settings.metrics else None,
        # A cell that this model cannot do is a row that says why.
        invalid="skip",
        name=experiment.name,
        **settings.options,
    )
    if settings.store is None:
        # Costs follow from the plan.
        rows: list[Any] = grid.dry_run().to_dict("records")
        rows = [{**row, "error": row["why"]} for row in rows]
    else:
        study = grid.run(
            settings.store, retry_failed=settings.retry_failed, progress=settings.progress
        )
        rows = study.records
    assert len(rows) == len(cells)
    each = iter(rows)
    return tuple(tuple(next(each) for _ in point.cells) for point in points)
