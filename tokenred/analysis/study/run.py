"""Running a plan: cells to an engine, outcomes to the store, progress to the user."""

from __future__ import annotations

import subprocess
from contextlib import closing, suppress
from datetime import datetime, timezone

from tokenred.analysis.study.cell import (
    FAILED,
    SKIPPED,
    Cell,
    EngineError,
    MetricNameError,
    Outcome,
    StudyInterruptedError,
    outcome,
)
from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.pool import Engine, Run
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.study import Study
from tokenred.core.progress import progress_bar

# How the error of a cell starts after which no other can be measured either.
_REFUSED = f"{MetricNameError.__name__}: "


def run_plan(
    plan: Plan,
    store: Store,
    engine: Engine,
    *,
    raising: bool = False,
    retry_failed: bool = False,
    wait: float = 0.0,
    level: float = 0.95,
    progress: bool = True,
) -> Study:
    """Run the cells of a plan that are not in the store; arguments as in `tokenred.analysis.Grid`.

    Raises:
        StoreError, EngineError, StudyInterruptedError: finished results are stored.
        MetricNameError: if a metric returns a name with another meaning in a row.
    """
    study = Study(plan, store, level)
    if any(plan.todo(store, retry_failed)):
        with store.writing(wait):
            plan.facts.keep(store)
            # Another grid may have been busy meanwhile.
            missing, narrow = plan.todo(store, retry_failed)
            store.set_axes(narrow)
            store.plan(plan.design.name, list(plan.results))
            _run_cells(plan, store, engine, _runner(plan, raising), missing, progress)
            _ = study.records  # compares each cell with its reference, for the next start
    elif not store.readonly:
        with suppress(StoreError):  # for a quick start next time
            plan.facts.keep(store)
    return study


def _runner(plan: Plan, raising: bool) -> Run:
    # Imports timm, which the second start of a finished grid does not need.
    from tokenred.analysis.study.worker import Runner

    design, facts = plan.design, plan.facts
    if design.reference is not None:
        facts.model(design.reference)
    return Runner(
        plan.settings, facts.planned, design.metrics, design.axes, design.channels_last, raising,
        design.loaders, design.room, design.reference, facts.loaded,
    )  # fmt: skip


def _run_cells(
    plan: Plan, store: Store, engine: Engine, runner: Run, missing: list[Cell], progress: bool
) -> None:
    """Run cells, and write a row for each as soon as it is done."""
    name = plan.design.name
    common = {"study": name, "engine": engine.name, "git_commit": _commit()}

    def write(found: list[tuple[Cell, Outcome]]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        store.write([{**plan.row(c), **o, "created": now, **common} for c, o in found])

    running = {cell.key: cell for cell in missing if cell.error is None}
    whole, stored, failed = len(running), len(plan.results) - len(missing), 0
    bar = progress_bar(stored + whole, name, "cells", progress, initial=stored)
    stream = engine.run(runner, list(running.values()))
    try:
        with bar, closing(stream):  # type: ignore[type-var]
            for found in stream:
                if refused := [o["error"] for o in found if o["error"].startswith(_REFUSED)]:
                    raise MetricNameError(refused[0].removeprefix(_REFUSED))
                write([(running.pop(each["key"]), each) for each in found])
                failed += sum(each["status"] == FAILED for each in found)
                if failed:
                    bar.set_postfix(failed=failed, refresh=False)
                bar.update(len(found))
        left_out = [cell for cell in missing if cell.error is not None]
        write([(cell, outcome(cell.key, SKIPPED, error=cell.why)) for cell in left_out])
    except KeyboardInterrupt as stop:
        raise StudyInterruptedError(
            f"stopped: {whole - len(running)} of {whole} results were finished, references among "
            f"them. Finished results are in {store.path or 'memory'}; start the same grid on that "
            "store again to continue."
        ) from stop
    if running:
        raise EngineError(
            f"engine {engine.name!r} ended without outcomes for {len(running)} cells; start the "
            "grid again."
        )


def _commit() -> str:
    """The commit of the working directory, with ``+`` if files differ from it."""
    try:
        # The folder may be somebody else's, and its settings name programs to run.
        found, changes = (
            subprocess.run(
                ["git", "-c", "core.fsmonitor=false", *arguments],
                capture_output=True, text=True, check=True, timeout=10,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""  # no git, or no repository
    return found + "+" * bool(changes)
