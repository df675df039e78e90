"""What tokenred promises of a GPU, checked and measured in a few minutes on one.

    python benchmarks/gpu.py --budget 450 --out DIR      (from a checkout, with PYTHONPATH=.)

Every stage has a share of the time that is left, and every figure is written to DIR/figures.jsonl
as soon as it is known, the most telling ones first. The same command again measures what is still
missing. A figure whose process dies or does not answer is recorded as such, and the rest goes on
in a new process. DIR/summary.md has the tables.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gpu_stages
import torch
from gpu_journal import BEGUN, BROKEN, SUMMARY, Journal, Row, supervise, table
from gpu_stages import STAGES, Stage


def work(journal: Journal, stages: Sequence[Stage], end: float) -> int:
    """Measure what is missing, each stage until its share of the time is over."""
    for number, stage in enumerate(stages):
        weight = stage.weight / sum(later.weight for later in stages[number:])
        box = time.time() + (end - time.time()) * weight
        for key, measure in stage.figures():
            if journal.has(stage.name, key):
                continue
            if time.time() > box - stage.least:
                break
            begin = time.time()
            journal.begin(stage.name, key, min(stage.limit, end - begin))
            found, works = _measured(measure)
            journal.add({"stage": stage.name, **key, **found, "took_s": time.time() - begin})
            if not works:
                return BROKEN
    return 0


def _measured(measure: Callable[[], Row]) -> tuple[Row, bool]:
    """A figure or its error, and whether the GPU can still be used."""
    try:
        found = measure()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]}
    try:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        if "error" in found:
            gc.collect()
            torch.cuda.empty_cache()
    except RuntimeError:
        return found, False
    return found, True


def summary(rows: Sequence[Row], stages: Sequence[Stage]) -> str:
    """The figures as Markdown, one table a stage."""
    parts = []
    for stage in stages:
        own = [row for row in rows if row["stage"] == stage.name]
        known = sum(1 for _ in stage.figures())
        failed = sum("error" in row for row in own)
        parts.append(f"## {stage.title}\n\n{len(own)} of {known} figures, {failed} with an error.")
        if shown := [row for row in own if stage.shows(row)]:
            parts.append(table(shown))
    return "\n\n".join(parts) + "\n"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--budget", type=float, default=450, help="seconds that this may take")
    parser.add_argument("--only", nargs="+", metavar="STAGE", choices=[s.name for s in STAGES],
                        help=f"some of: {', '.join(s.name for s in STAGES)}")  # fmt: skip
    parser.add_argument("--retry", action="store_true", help="measure again what failed")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Measure until all is known or the time is over; 0 if there is no error among the figures."""
    parser = arguments()
    asked = parser.parse_args(given)
    stages = [stage for stage in STAGES if not asked.only or stage.name in asked.only]
    asked.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.out)
    gpu_stages.OUT = asked.out
    if asked.until is not None:
        return work(journal, stages, asked.until)
    if not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here (torch.cuda.is_available() is False).")
    now = gpu_stages.environment()
    known = next((row for row in journal.rows if row["stage"] == "environment"), None)
    if known is not None and known["code"] != now["code"]:
        parser.error(f"{asked.out} has figures of other code; choose another folder.")
    if asked.retry:
        kept = [row for row in journal.rows if "error" not in row]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        journal.path.write_text(text, encoding="utf-8")
    (asked.out / BEGUN).unlink(missing_ok=True)
    # `timeout` and schedulers end a run like this; the worker ends too, and the summary is written.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    command = [sys.executable, __file__, "--out", str(asked.out)]
    command += ["--only", *asked.only] if asked.only else []
    try:
        supervise(journal, command, time.time() + asked.budget)
    finally:
        rows = Journal(asked.out).rows
        text = summary(rows, stages)
        (asked.out / SUMMARY).write_text(text, encoding="utf-8")
        print(f"\n{text}", flush=True)
    return int(not rows or any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
