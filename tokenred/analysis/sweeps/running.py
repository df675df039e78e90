"""`sweep`: run the cells that are not measured yet, and keep each result at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import nn
from tqdm import tqdm

from tokenred.analysis.measure.candidates import DTYPES, build_model, image_shape_of
from tokenred.analysis.measure.machine import cpu_threads, describe_machine
from tokenred.analysis.measure.memory import PeakMemory, can_travel, peak_memory
from tokenred.analysis.measure.out_of_memory import is_out_of_memory
from tokenred.analysis.measure.speed import benchmark
from tokenred.analysis.sweeps.cells import Cell, grid
from tokenred.analysis.sweeps.log import append_result, read_results
from tokenred.analysis.sweeps.planning import make_plan
from tokenred.analysis.sweeps.results import DONE, FAILED, OUT_OF_MEMORY, Sweep
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.values import Count, read
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import StrategyLike

__all__ = ["sweep"]

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {postfix}[{elapsed}<{remaining}]"


def sweep(
    models: str | Path | Sequence[str | Path],
    strategies: Sequence[StrategyLike],
    path: str | Path | None = None,
    *,
    batch_sizes: Sequence[int] = (1, 8, 32),
    image_sizes: Sequence[int | tuple[int, int] | None] = (None,),
    dtypes: Sequence[str] = ("float32",),
    compile: Sequence[bool | str] = (False,),
    threads: Sequence[int | None] = (None,),
    devices: Sequence[str] = ("cpu",),
    pairs: int = 15,
    warmup: int = 2,
    max_seconds: float | None = None,
    memory: bool = False,
    split: bool = False,
    seed: int = 0,
    retry: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> Sweep:
    """Measure every strategy in every setting, against the dense model in the same setting.

    Every model is built, and every strategy wrapped around it, before anything is timed; cells that
    cannot run are left out and named with the reason. Each result is added to the file as soon as
    it is there, so a run that is killed loses nothing, and the next one goes on behind it. A cell
    that fails, or for which the memory does not suffice, is noted as such, and the sweep goes on.

    Args:
        models: names or paths, for `tokenred.models.load_model`; timm's get random weights.
        strategies: what `tokenred.analysis.parse_spec` takes.
        path: file of results, one line of JSON a cell; what it holds is not measured again, unless
            machine or versions differ. None to keep the results in memory.
        batch_sizes, image_sizes, dtypes, compile, threads, devices: the settings, in every
            combination. An image size is a side, or (height, width); None for the model's own. A
            dtype is that of weights and images.
        pairs, warmup, max_seconds, seed: of each cell, see `tokenred.analysis.benchmark`.
        memory: peak memory too, dense and reduced, each in a process of its own.
        split: the split of the time too.
        retry: measure cells anew that failed before.
        overwrite: begin the file anew.
        dry_run: measure nothing; the result says what is to do.
        progress: show a bar, with the time left, on a terminal.

    Raises:
        ConfigError: for values out of range, or where no cell can run.
        UnknownNameError: for an unknown model or strategy.
        DataError: for a file that holds something else, or a folder that is not there.
    """
    read(Annotated[int, Ge(2)], pairs, "pairs")
    read(Count, warmup, "warmup")
    cells = grid(
        models,
        strategies,
        batch_sizes=batch_sizes,
        image_sizes=image_sizes,
        dtypes=dtypes,
        compile=compile,
        threads=threads,
        devices=devices,
    )
    file = None if path is None else Path(path).expanduser()
    if file is not None and not file.parent.is_dir():
        raise DataError(f"expected a folder for the results at {file.parent}, found none; make it.")
    old = file is not None and file.exists() and not overwrite
    before = read_results(file) if file is not None and old else []
    plan = make_plan(cells, memory=memory)
    if not plan.cells:
        cell, reason = plan.refused[0]
        raise ConfigError(f"no cell of the sweep can run; the first, {cell}: {reason}")
    how: dict[str, Any] = {
        "pairs": pairs,
        "warmup": warmup,
        "max_seconds": max_seconds,
        "memory": memory,
        "split": split,
        "seed": seed,
    }
    machines = {name: describe_machine(name) for name in {cell.device for cell in plan.cells}}
    keys = {cell: cell.key(machines[cell.device], how) for cell in plan.cells}
    known = {row["key"]: row for row in before if not retry or row["status"] == DONE}
    todo = [cell for cell in plan.cells if keys[cell] not in known]
    weights = dict(zip(plan.cells, plan.weights, strict=True))
    lab = _Laboratory(seed)
    if file is not None and overwrite and not dry_run:
        file.unlink(missing_ok=True)
    with _bar([weights[cell] for cell in todo], progress and not dry_run) as bar:
        for at, cell in enumerate([] if dry_run else todo):
            bar.set_postfix_str(f"{at + 1} of {len(todo)}: {cell} ")
            row = {"key": keys[cell]} | _run(cell, lab, **how) | {"seed": seed}
            known[keys[cell]] = row
            if file is not None:
                append_result(file, row)
            bar.update(weights[cell])
    lab.clear()
    return Sweep(
        rows=tuple(known[keys[cell]] for cell in plan.cells if keys[cell] in known),
        todo=tuple(todo) if dry_run else (),
        refused=plan.refused,
        path=file,
    )


@contextmanager
def _bar(weights: Sequence[float], shown: bool) -> Iterator[tqdm[Any]]:
    """A bar that counts work, not cells, so that the time left is about right."""
    quiet = None if shown else True
    with tqdm(total=sum(weights), desc="sweep", bar_format=_BAR, leave=False, disable=quiet) as bar:
        yield bar


class _Laboratory:
    """What neighbouring cells share: the model, compiled or not, and the dense peak memory."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._model: tuple[object, nn.Module | None] = (None, None)
        self._peaks: dict[object, PeakMemory] = {}
        self._compiled = False

    def model(self, cell: Cell) -> nn.Module:
        """The dense model of a cell, on its device."""
        wanted = (cell.model, cell.image_size, cell.dtype, cell.device)
        held, model = self._model
        if model is None or held != wanted:
            self.clear()  # two large models at a time may be one too many
            model = build_model(cell.model, cell.image_size, DTYPES[cell.dtype], self.seed)
            model = model.to(cell.device)
            self._model = (wanted, model)
        self._compiled |= bool(cell.compile)
        return model

    def clear(self) -> None:
        """Leave nothing behind that the next model would feel."""
        self._model = (None, None)
        if self._compiled:
            torch.compiler.reset()
            self._compiled = False

    def peaks(self, cell: Cell, reduced: ReducedViT) -> dict[str, Any]:
        """Peak memory of both models, in processes of their own where that can be."""
        options: dict[str, Any] = {
            "image_shape": image_shape_of(reduced.base),
            "batch_size": cell.batch_size,
            "threads": cell.threads,
            "device": cell.device,
            "seed": self.seed,
        }
        if not can_travel(reduced.strategy):
            own = peak_memory(reduced, **options)
            dense = peak_memory(self.model(cell), **options)
        else:
            named = options | {"dtype": DTYPES[cell.dtype]}
            own = peak_memory(cell.model, strategy=reduced.strategy, **named)
            same = (cell.model, tuple(named.items()))
            if same not in self._peaks:
                self._peaks[same] = peak_memory(cell.model, **named)
            dense = self._peaks[same]
        found = {
            "peak_bytes": own.peak_bytes,
            "dense_peak_bytes": dense.peak_bytes,
            "resident_bytes": own.resident_bytes,
            "dense_resident_bytes": dense.resident_bytes,
            "peak_in_own_process": own.own_process,
        }
        return {name: value for name, value in found.items() if value is not None}


def _run(cell: Cell, lab: _Laboratory, *, memory: bool, seed: int, **how: Any) -> dict[str, Any]:
    """The row of a cell, whatever becomes of it."""
    begin = time.monotonic()
    with cpu_threads(cell.threads):
        machine = describe_machine(cell.device)
    about = cell.settings | machine
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        dense = lab.model(cell)
        reduced = wrap(dense, cell.spec)
        found = benchmark(
            {cell.spec.label: reduced},
            batch_size=cell.batch_size,
            threads=cell.threads,
            compile=cell.compile,  # type: ignore[arg-type]
            seed=seed,
            progress=False,
            **how,
        )
        row = {"tokens": reduced.info.num_prefix + reduced.info.num_patches} | found[0].row()
        del row["name"]
        if memory:
            row |= lab.peaks(cell, reduced)
        result = {"status": DONE} | about | row
    except Exception as error:  # one cell's failure is not the sweep's
        status = OUT_OF_MEMORY if is_out_of_memory(error) else FAILED
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        result = {"status": status} | about | {"error": message[:500]}
    finally:
        _tidy(cell.device)
    return result | {"when": when, "seconds": round(time.monotonic() - begin, 3)}


def _tidy(device: str) -> None:
    """Give back what the next cell may need; the CPU's garbage is collected before each timing."""
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()
