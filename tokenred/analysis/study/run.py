"""Running a plan: tasks to an engine, outcomes to the store, progress to the user."""

from __future__ import annotations

import subprocess
from contextlib import closing, suppress
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
from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.design import Design
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.pool import Engine, Run
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.study import Study
from tokenred.core.errors import PartError
from tokenred.core.provenance import is_installed

_OF_OUTCOME = ("metrics", "status", "error", "traceback", "attempts", "seconds", "machine")


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
    if plan.missing(store, retry_failed) or plan.narrow(store):
        with store.writing(wait):
            plan.facts.keep(store)
            # Another grid may have been busy meanwhile.
            missing = plan.missing(store, retry_failed)
            store.set_axes(plan.narrow(store))
            store.plan(plan.design.name, list(plan.results))
            runner = _runner(plan, raising)
            _Writer(plan, store, engine).run(runner, missing, progress)
            study.keep_differences()
    elif plan.facts.is_fresh and not store.readonly:
        with suppress(StoreError), store.writing():  # for a quick start next time
            plan.facts.keep(store)
    return study


def _runner(plan: Plan, raising: bool) -> Run:
    # Imports timm, which the second start of a finished grid does not need.
    from tokenred.analysis.study.worker import Runner

    design, facts = plan.design, plan.facts
    reference = design.reference
    if reference is not None:
        facts.model(reference)
    return Runner(
        models=tuple(design.models),
        data=tuple(design.datasets),
        weights=tuple(map(facts.weights, design.models)),
        contents=tuple(map(facts.content, design.datasets)),
        metrics=design.metrics,
        axes=design.axes,
        channels_last=design.channels_last,
        raising=raising,
        loaders=design.loaders,
        room=design.room,
        reference=None if reference is None else design.place(reference),
        bases={design.models.index(ref): model for ref, model in facts.loaded.items()},
    )


class _Writer:
    """Turns outcomes into rows of a store, of which this process is the only writer."""

    def __init__(self, plan: Plan, store: Store, engine: Engine) -> None:
        self._plan, self._store, self._engine = plan, store, engine
        self._common = {
            "study": plan.design.name, "engine": engine.name, "git_commit": _commit()
        }  # fmt: skip
        self._names: dict[str, tuple[str, ...]] = {}

    def run(self, runner: Run, missing: list[Cell], progress: bool) -> None:
        plan, store, engine = self._plan, self._store, self._engine
        running = {cell.key: cell for cell in missing if cell.error is None}
        whole, finished, failed = len(running), 0, 0
        stored = len(plan.results) - len(missing)
        # disable=None: quiet if stderr is not a terminal.
        bar = tqdm(
            total=stored + whole, initial=stored, desc=self._common["study"], unit="cell",
            disable=None if progress else True,
        )  # fmt: skip
        tasks = [self._task(cell) for cell in running.values()]
        stream = engine.run(runner, tasks, _own_modules(plan.design))
        try:
            with bar, closing(stream):  # type: ignore[type-var]
                for outcomes in stream:
                    outcomes = [self._as_before(outcome) for outcome in outcomes]
                    rows = [(running.pop(o.key), o) for o in outcomes if not o.refused]
                    store.write([self._row(cell, outcome) for cell, outcome in rows])
                    if refused := [outcome.error for outcome in outcomes if outcome.refused]:
                        raise MetricNameError(refused[0])
                    finished += len(outcomes)
                    failed += sum(outcome.status == FAILED for outcome in outcomes)
                    bar.update(len(outcomes))
                    if failed:
                        bar.set_postfix(failed=failed)
            left_out = [cell for cell in missing if cell.error is not None]
            skipped = [(cell, Outcome(cell.key, SKIPPED, error=cell.why)) for cell in left_out]
            store.write([self._row(cell, outcome) for cell, outcome in skipped])
        except KeyboardInterrupt as stop:
            raise StudyInterruptedError(
                f"stopped: {finished} of {whole} results were finished, references among them. "
                f"Finished results are in {store.path or 'memory'}; start the same grid on that "
                "store again to continue."
            ) from stop
        if running:
            raise EngineError(
                f"engine {engine.name!r} ended without outcomes for {len(running)} cells; "
                "start the grid again."
            )

    def _task(self, cell: Cell) -> Task:
        assert cell.strategy is not None
        as_it_is = hasattr(self._plan.model(cell).module, "stands_for")
        return Task(cell.key, cell.strategy, cell.setting, as_it_is)

    def _as_before(self, outcome: Outcome) -> Outcome:
        """The outcome; failed if a metric returned other names than in earlier cells."""
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
        return {
            **self._plan.row(cell),
            **{name: getattr(outcome, name) for name in _OF_OUTCOME},
            "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "packed": outcome.packed if outcome.status == DONE else None,
            **self._common,
        }


def _own_modules(design: Design) -> set[str]:
    """The user's modules that metrics, models and data come from."""
    things: list[Any] = [metric.function for metric in design.metrics]
    things += [type(ref.module) for ref in design.models]
    for data in [ref.dataset for ref in design.datasets if ref is not None and ref.dataset]:
        things += [type(data), type(data.source), data.transform, type(data.transform)]
    modules = {str(getattr(thing, "__module__", "builtins")) for thing in things}
    return {module for module in modules if not is_installed(module)}


def _commit() -> str:
    """The commit of the working directory, with ``+`` if files differ from it."""
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
