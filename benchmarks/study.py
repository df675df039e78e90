"""Measure what a study costs besides its forward passes, and whether engines agree.

    python benchmarks/study.py                        # all sections
    python benchmarks/study.py plan writer --out study.json
    python benchmarks/study.py engines --model weights.safetensors --data cifar10:PATH --limit 1000

Other work on the machine makes the figures worse, CPU times less so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from reporting import write_readme
from study_clock import Figures
from study_costs import overhead, second
from study_engines import ENGINES, engines
from study_plan import plan
from study_stubs import ray_stubs, writer
from study_table import table

from tokenred.analysis.measure.machine import describe_machine
from tokenred.core.files import write_whole

HERE = Path(__file__).parent
SECTIONS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "plan": plan,
    "writer": writer,
    "ray": ray_stubs,
    "overhead": overhead,
    "second": second,
    "engines": engines,
}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name:<10}{f.__doc__}" for name, f in SECTIONS.items()),
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; by default all")
    add("--cells", type=int, nargs="+", default=[1_000, 10_000], help="of plan")
    add("--rows", type=int, default=20_000, help="of writer")
    add("--stubs", type=int, default=100_000, help="cells of the section ray")
    add("--cell-seconds", type=float, default=5.0, help="length of a cell in overhead")
    add("--overhead-cells", type=int, default=4)
    add("--starts", type=int, default=3, help="starts of a finished grid in second")
    add("--model", default="digits", help="of engines")
    add("--data", default="digits", help="of engines")
    add("--limit", type=int, help="images in engines")
    add("--engine", action="append", choices=[*ENGINES], help="one of the engines; may be repeated")
    add("--stores", type=Path, help="folder of the stores of engines, to resume from")
    add("--csv", type=Path, help="write the cells of engines to this table")
    add("--out", type=Path, help="JSON file; keeps sections that are not measured")
    add("--readme", action="store_true",
        help="write --out into README.md; without SECTION, do only that")  # fmt: skip
    return parser


def show(section: str, figures: Figures) -> None:
    print(f"\n{section}: {(SECTIONS[section].__doc__ or '').strip()}")
    for name, values in figures.items():
        told = "  ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in values.items())
        print(f"  {name:<48} {told}", flush=True)


def command(section: str, options: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The command that repeats a section; paths outside the checkout are shortened to names."""
    words = ["python", "benchmarks/study.py", section]
    used = {"engines": ("model", "data", "limit")}.get(section, ())
    for name in used:
        value = getattr(options, name)
        if value != parser.get_default(name):
            words += [f"--{name}", re.sub(r"[^:]*/", "", str(value))]
    return shlex.join(words)


def main(given: Sequence[str] | None = None) -> int:
    """Measure sections; return 0, or 2 for invalid arguments."""
    parser = arguments()
    options = parser.parse_args(given)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if options.readme and options.out is None:
        parser.error("--readme needs --out")
    results: Figures = {}
    if options.out is not None and options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))
    for section in options.sections or (() if options.readme else SECTIONS):
        figures = SECTIONS[section](options)
        show(section, figures)
        told = command(section, options, parser)
        if section == "engines" and section in results:  # of other models
            before = results[section]
            figures = {**before["figures"], **figures}
            told = "; ".join(dict.fromkeys([*before["command"].split("; "), told]))
        results[section] = {
            "command": told,
            "when": date.today().isoformat(),
            "load": os.getloadavg()[0],
            "machine": describe_machine(),
            "figures": figures,
        }
        if options.out is not None:
            text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
            write_whole(options.out, lambda place, text=text: place.write_text(text, "utf-8"))
    if options.readme:
        write_readme(HERE / "README.md", "study", table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
