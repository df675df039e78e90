"""A table of a study's costs and their goals, for the README."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """A figure, and what it should be.

    Attributes:
        figure, goal: both in words.
        section: the section that measures it.
        measured: turns the section's figures into text.
        holds: whether they meet the goal.
    """

    figure: str
    goal: str
    section: str
    measured: Callable[[Results], str]
    holds: Callable[[Results], bool]


def _rates(figures: Results) -> list[int]:
    return [values["rows_a_second"] for values in figures.values()]


def _largest(figures: Results) -> float:
    return max((v.get("largest_difference", 0.0) for v in figures.values()), default=0.0)


def _planned(figures: Results) -> tuple[str, Results]:
    return list(figures.items())[-1]


def _shown_plan(figures: Results) -> str:
    name, values = _planned(figures)
    return f"{name}: {values['seconds']:.1f} s ({values['cpu_seconds']:.1f} s of CPU time)"


def _shown_memory(figures: Results) -> str:
    sizes = (f"{v['memory_growth_mb']:.1f} MB for {name}" for name, v in figures.items())
    return ", ".join(sizes)


def _shown_writer(figures: Results) -> str:
    return f"{min(_rates(figures)):,} to {max(_rates(figures)):,}"


def _shown_overhead(figures: Results) -> str:
    grid = figures["grid"]
    return (
        f"{grid['overhead']:.1%} ({grid['cpu_overhead']:.1%} of the CPU's time), "
        f"{grid['cells']} cells of {grid['forward_cpu_a_cell']:.1f} s of CPU time"
    )


def _shown_second(figures: Results) -> str:
    second = figures["second start"]
    told = f"{second['seconds']:.1f} s ({second['cpu_seconds']:.1f} s of CPU time), best of"
    return f"{told} {second['starts']}; store {_changed(second['store_unchanged'])}"


def _changed(unchanged: bool) -> str:
    return "unchanged to the byte" if unchanged else "changed"


def _shown_ray(figures: Results) -> str:
    ((_, values),) = figures.items()
    return (
        f"{values['lost']} of {values['cells']:,} lost, {values['rows_a_second']:,} a second in "
        f"{values['writes']:,} batches"
    )


def _shown_engines(figures: Results) -> str:
    runs = sum("largest_difference" in values for values in figures.values())
    differ = sum(values.get("predictions_that_differ", 0) for values in figures.values())
    return f"{_largest(figures):.1g} at most in {runs} comparisons, {differ} predictions differ"


GOALS = (
    Goal("10,000 cells planned", "< 2 s", "plan", _shown_plan,
         lambda f: _planned(f)[1]["cpu_seconds"] < 2),
    Goal("memory of planning", "< 100 MB", "plan", _shown_memory,
         lambda f: _planned(f)[1]["memory_growth_mb"] < 100),
    Goal("rows a second, one writer", "≥ 2,000", "writer", _shown_writer,
         lambda f: min(_rates(f)) >= 2000),
    Goal("100,000 stub cells, 8 workers of Ray", "none lost", "ray", _shown_ray,
         lambda f: all(v["lost"] == 0 and v["rows"] == v["cells"] for v in f.values())),
    Goal("time outside forward passes, cells of 5 s", "≤ 3%", "overhead", _shown_overhead,
         lambda f: f["grid"]["cpu_overhead"] <= 0.03),
    Goal("second start of a finished grid", "< 3 s, computes nothing", "second", _shown_second,
         lambda f: f["second start"]["cpu_seconds"] < 3 and f["second start"]["store_unchanged"]),
    Goal("60 cells on every engine", "rows equal to 1e-6", "engines", _shown_engines,
         lambda f: _largest(f) <= 1e-6),
)  # fmt: skip


def table(results: Results) -> str:
    """Figure, goal, measured, command; then the runs on each engine."""
    lines = ["| figure | goal | measured | | command |", "| --- | --- | --- | --- | --- |"]
    for goal in GOALS:
        if goal.section in results:
            part = results[goal.section]
            tick = "✓" if goal.holds(part["figures"]) else "✗"
            shown, told = goal.measured(part["figures"]), part["command"].replace("; ", "`, `")
            lines.append(f"| {goal.figure} | {goal.goal} | {shown} | {tick} | `{told}` |")
    if "engines" in results:
        lines += ["", *_engines(results["engines"]["figures"])]
    machines = {
        f"{part['machine']['processor']}, {part['machine']['cores']} cores, Python "
        f"{part['machine']['python']}, torch {part['machine']['torch']}, {part['when']}."
        for part in results.values()
    }
    return "\n".join([*lines, "", *sorted(machines)])


def _engines(figures: Results) -> list[str]:
    columns = ("cell_seconds", "lowest_top1", "highest_top1", "largest_difference",
               "predictions_that_differ")  # fmt: skip
    heads = (name.replace("_", " ").replace("top1", "top-1 %") for name in columns)
    lines = [f"| 60 cells | {' | '.join(heads)} |", f"|{' --- |' * (len(columns) + 1)}"]
    for name, values in figures.items():
        cells = (f"{values[c]:g}" if c in values else "" for c in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
