"""Running a plan: tasks to an engine, outcomes to the store, a bar for the user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from tqdm import tqdm

from tokenred.analysis.study.cell import DONE, FAILED, SKIPPED, Cell, Outcome, StoredRow, Task
from tokenred.analysis.study.design import Design
from tokenred.analysis.study.engines.base import Engine, Run
from tokenred.analysis.study.errors import (
    EngineError,
    MetricNameError,
    StudyInterruptedError,
)
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.worker import failure
from tokenred.core.errors import PartError
from tokenred.core.provenance import is_installed
from tokenred.strategies.config import to_config

__all__ = ["Execution"]

_PAGE = 200


class Execution:
    """One run of a plan.

    Args:
        plan: what to run.
        store: where outcomes go; this process is its one writer.
        design: of the grid.
        facts: about its models.
        name: of the study.
        batch_size: for the rows.
    """

    def __init__(
        self, plan: Plan, store: Store, design: Design, facts: Facts, name: str, batch_size: int
    ) -> None:
        self._plan = plan
        self._store = store
        self._design = design
        self._facts = facts
        self._common: dict[str, Any] = {
            "study": name,
            "batch_size": batch_size,
            "git_commit": _commit(),
        }
        self._running: dict[str, Cell] = {}
        self._left_out: list[StoredRow] = []
        self._names: dict[str, tuple[str, ...]] = {}

    def __call__(self, engine: Engine, runner: Run, retry_failed: bool, progress: bool) -> None:
        """Run all that the store lacks.

        Raises:
            StudyInterruptedError: where the user stops it.
            EngineError, StoreError: what was finished before is stored.
            MetricNameError: where a metric gives a name that says something else in a row.
        """
        survey = self._plan.survey(self._store, retry_failed)
        self._common["engine"] = engine.name
        # disable=None: quiet where stderr is no terminal.
        bar = tqdm(
            total=survey.stored + survey.todo, initial=survey.stored, desc=self._common["study"],
            unit="cell", disable=None if progress else True,
        )  # fmt: skip
        finished = failed = 0
        stream = engine.run(runner, self._tasks(retry_failed), _own_modules(self._design))
        try:
            with bar, closing(stream):  # type: ignore[type-var]
                for outcomes in stream:
                    outcomes = [self._as_before(outcome) for outcome in outcomes]
                    self._store.write([self._row(o) for o in outcomes if not o.refused])
                    if refused := [outcome.error for outcome in outcomes if outcome.refused]:
                        raise MetricNameError(refused[0])
                    finished += len(outcomes)
                    failed += sum(outcome.status == FAILED for outcome in outcomes)
                    bar.update(len(outcomes))
                    if failed:
                        bar.set_postfix(failed=failed)
            self._store.write(self._left_out)
        except KeyboardInterrupt as stop:
            raise StudyInterruptedError(
                f"stopped: {finished} cells were finished, {survey.todo - finished} are to go. "
                f"What is finished is in {self._store.path or 'memory'}; start the same grid on "
                "that store again to go on."
            ) from stop
        if self._running:
            raise EngineError(
                f"engine {engine.name!r} ended without outcomes for {len(self._running)} cells; "
                "start the grid again."
            )

    def _tasks(self, retry_failed: bool) -> Iterator[Task]:
        for cell, why in self._plan.todo(self._store, retry_failed):
            if why:
                self._left_out.append(self._row(Outcome(cell.key, SKIPPED, error=why), cell))
                if len(self._left_out) >= _PAGE:
                    self._store.write(self._left_out)
                    self._left_out = []
                continue
            assert cell.strategy is not None
            self._running[cell.key] = cell
            yield Task(cell.key, cell.strategy, cell.setting)

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

    def _row(self, outcome: Outcome, cell: Cell | None = None) -> StoredRow:
        cell = cell or self._running.pop(outcome.key)
        design, setting, strategy = self._design, cell.setting, cell.strategy
        model, data = design.models[setting.model], design.datasets[setting.data]
        facts = self._facts.model(model)
        config = "" if strategy is None else json.dumps(to_config(strategy, strict=False))
        columns: dict[str, Any] = {
            "key": cell.key,
            "axes": cell.axes_json,
            "strategy": cell.label,
            "method": cell.base.method,
            "config": config,
            "fingerprint": cell.fingerprint,
            "model": model.label,
            "weights": facts.weights,
            "data": "" if data is None else data.label,
            "image_limit": setting.limit,
            "seed": setting.seed,
            "dtype": setting.dtype or facts.dtype,
            "metrics": json.dumps(dict(outcome.metrics)),
            "status": outcome.status,
            "error": outcome.error,
            "traceback": outcome.traceback,
            "attempts": outcome.attempts,
            "seconds": outcome.seconds,
            "machine": json.dumps(dict(outcome.machine)),
            "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            **self._common,
        }
        return StoredRow(columns, outcome.packed if outcome.status == DONE else None)


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
