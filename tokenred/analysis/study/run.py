"""Running a plan: tasks to an engine, outcomes to the store, a bar for the user."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from tqdm import tqdm

from tokenred.analysis.study.cell import (
    DONE,
    FAILED,
    SKIPPED,
    Cell,
    EngineError,
    MetricNameError,
    Outcome,
    StudyInterruptedError,
    Task,
    failure,
)
from tokenred.analysis.study.engines.base import Engine, Run
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.plan import Design, Plan
from tokenred.analysis.study.store import Store
from tokenred.core.errors import PartError
from tokenred.core.provenance import is_installed
from tokenred.strategies.config import to_config

__all__ = ["Execution"]


class Execution:
    """One run of a plan.

    Args:
        plan: what to run.
        store: where outcomes go; this process is its one writer.
        design: of the grid.
        facts: about its models.
        name: of the study.
    """

    def __init__(self, plan: Plan, store: Store, design: Design, facts: Facts, name: str) -> None:
        self._plan = plan
        self._store = store
        self._design = design
        self._facts = facts
        self._common: dict[str, Any] = {"study": name, "git_commit": _commit()}
        self._names: dict[str, tuple[str, ...]] = {}

    def __call__(self, engine: Engine, runner: Run, missing: list[Cell], progress: bool) -> None:
        """Run cells that the store lacks.

        Raises:
            StudyInterruptedError: where the user stops it.
            EngineError, StoreError: what was finished before is stored.
            MetricNameError: where a metric gives a name that says something else in a row.
        """
        self._common["engine"] = engine.name
        left_out = [cell for cell in missing if cell.error is not None]
        running = {cell.key: cell for cell in missing if cell.error is None}
        whole, finished, failed = len(running), 0, 0
        stored = len(self._plan.results) - len(missing)
        # disable=None: quiet where stderr is no terminal.
        bar = tqdm(
            total=stored + whole, initial=stored, desc=self._common["study"], unit="cell",
            disable=None if progress else True,
        )  # fmt: skip
        modules = _own_modules(self._design)
        stream = engine.run(runner, [self._task(cell) for cell in running.values()], modules)
        try:
            with bar, closing(stream):  # type: ignore[type-var]
                for outcomes in stream:
                    outcomes = [self._as_before(outcome) for outcome in outcomes]
                    rows = [(running.pop(o.key), o) for o in outcomes if not o.refused]
                    self._store.write([self._row(cell, outcome) for cell, outcome in rows])
                    if refused := [outcome.error for outcome in outcomes if outcome.refused]:
                        raise MetricNameError(refused[0])
                    finished += len(outcomes)
                    failed += sum(outcome.status == FAILED for outcome in outcomes)
                    bar.update(len(outcomes))
                    if failed:
                        bar.set_postfix(failed=failed)
            skipped = [(cell, Outcome(cell.key, SKIPPED, error=cell.why)) for cell in left_out]
            self._store.write([self._row(cell, outcome) for cell, outcome in skipped])
        except KeyboardInterrupt as stop:
            raise StudyInterruptedError(
                f"stopped: {finished} cells were finished, {whole - finished} are to go. "
                f"What is finished is in {self._store.path or 'memory'}; start the same grid on "
                "that store again to go on."
            ) from stop
        if running:
            raise EngineError(
                f"engine {engine.name!r} ended without outcomes for {len(running)} cells; "
                "start the grid again."
            )

    def _task(self, cell: Cell) -> Task:
        assert cell.strategy is not None
        module = self._design.models[cell.setting.model].module
        return Task(cell.key, cell.strategy, cell.setting, hasattr(module, "stands_for"))

    def _as_before(self, outcome: Outcome) -> Outcome:
        """An outcome; a failed one where a metric gives other names than in earlier cells."""
        for metric, names in outcome.names.items():
            before = self._names.setdefault(metric, names)
            if before != names:
                error = PartError(
                    f"metric {metric!r} gave {', '.join(names) or 'nothing'} in this cell and "
                    f"{', '.join(before) or 'nothing'} in another; give the same names in all, "
                    "and None where there is no value."
                )
                told = failure(outcome.key, error, outcome.attempts)
                return replace(told, seconds=outcome.seconds, machine=outcome.machine)
        return outcome

    def _row(self, cell: Cell, outcome: Outcome) -> dict[str, Any]:
        strategy, setting = cell.strategy, cell.setting
        told = self._plan.columns(cell)
        facts = self._facts.model(self._design.models[setting.model]) if strategy else None
        return {
            "key": cell.key,
            "axes": cell.plain_axes,
            "strategy": cell.label,
            "method": cell.base.method,
            "config": "" if strategy is None else json.dumps(to_config(strategy, strict=False)),
            "fingerprint": cell.fingerprint,
            "model": told["model"],
            "weights": facts.weights if facts else "",
            "data": told["data"],
            "image_limit": setting.limit,
            "seed": setting.seed,
            "dtype": setting.dtype or (facts.dtype if facts else ""),
            "batch_size": setting.batch_size,
            "image_size": told["image_size"],
            "compile": told["compile"],
            "metrics": outcome.metrics,
            "status": outcome.status,
            "error": outcome.error,
            "traceback": outcome.traceback,
            "attempts": outcome.attempts,
            "seconds": outcome.seconds,
            "machine": outcome.machine,
            "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "packed": outcome.packed if outcome.status == DONE else None,
            **self._common,
        }


def _own_modules(design: Design) -> set[str]:
    """Modules of the user's that metrics, models and data come from."""
    things: list[Any] = [metric.function for metric in design.metrics]
    things += [type(ref.module) for ref in design.models]
    datasets = [ref.dataset for ref in design.datasets if ref is not None and ref.dataset]
    for data in datasets:
        things += [type(data), type(data.source), data.transform, type(data.transform)]
    modules = {str(getattr(thing, "__module__", "builtins")) for thing in things}
    return {module for module in modules if not is_installed(module)}


def _commit() -> str:
    """The commit of the folder that this runs in, ``+`` behind it where files differ from it."""
    try:
        found = [
            subprocess.run(
                # The folder may be somebody else's, and its settings name programs to run.
                ["git", "-c", "core.fsmonitor=false", *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.SubprocessError):
        return ""  # no git, or no repository
    return found[0] + ("+" if found[1] else "")
