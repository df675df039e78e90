"""`sweep`: speed of models and strategies in many settings, as a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tokenred.analysis.lineup import named_specs
from tokenred.analysis.measure.split import LINES
from tokenred.analysis.result import Columns, Result, figure_columns, figure_notes, table_of, word
from tokenred.analysis.study.cell import OUT_OF_MEMORY, Cell
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.pool import Serial
from tokenred.analysis.study.rows import DONE, SKIPPED, record, unused_notes
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.study import run_plan
from tokenred.core.errors import ConfigError, shown
from tokenred.core.values import Compile, Count, EngineName, Magnitude, Size, checked
from tokenred.strategies.specs import StrategyLike

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
_HEADS = {
    "model": "model", "image_size": "images", "dtype": "dtype", "compile": "compiled",
    "engine": "engine", "threads": "threads", "device": "device", "strategy": "strategy",
    "batch_size": "batch",
}  # fmt: skip
# Headings of a split; those of `LINES` would not fit next to each other.
_NARROW = {
    "attention": "atten-\ntion", "statistics": "stats,\nθ", "selection": "select",
    "projections": "qkv,\nproj.", "mlp": "MLP", "untouched": "whole\nblocks",
    "ends": "embed,\nhead",
}  # fmt: skip
_NAMED = ("model", "image_size", "dtype", "device")


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Result):
    """Speed in many settings; ``print`` shows the tables.

    Attributes:
        rows: one per cell measured now or earlier: settings, machine, the values of
            `tokenred.analysis.Timing`, and a ``status``: done, failed or out of memory.
        todo: cells still to be measured, from a dry run.
        refused: cells that cannot run, and why.
        path: the store of the results, or None.
    """

    rows: tuple[dict[str, Any], ...]
    todo: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    path: Path | None = None

    @classmethod
    def read(cls, path: str | Path) -> Sweep:
        """The timings in a store, or in a CSV written from it.

        Raises:
            StoreError: for a missing file, or one that is not a store.
            DataError: for a missing or unreadable CSV.
        """
        if Path(path).suffix == ".csv":
            from tokenred.analysis.plots.frames import read_frame

            told = read_frame(path).to_dict("records")
            rows = [{str(k): v for k, v in row.items() if v == v} for row in told]
            return cls(tuple(rows), path=Path(path))
        with closing(Store(path, readonly=True)) as store:
            return cls(_rows(store), path=Path(path))

    @property
    def done(self) -> tuple[dict[str, Any], ...]:
        """The rows with values."""
        return tuple(row for row in self.rows if row["status"] == DONE)

    @property
    def failures(self) -> tuple[dict[str, Any], ...]:
        """The rows without values; ``error`` says why."""
        return tuple(row for row in self.rows if row["status"] != DONE)

    def frame(self) -> pd.DataFrame:
        """A pandas frame, one row per cell."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.break_even_chart`."""
        from tokenred.analysis.plots.break_even import break_even_chart

        return break_even_chart(self, **options)

    def __rich__(self) -> Group:
        tables = _tables(self.rows) if self.rows else []
        parts = [part for table in tables for part in (table, Text())]
        return Group(*parts, *map(Text, self.footnotes()))

    def footnotes(self) -> list[str]:
        """How the tables were measured, what failed and what was refused."""
        lines = figure_notes(self.done)
        if self.done:
            first = self.done[0]
            lines += [
                "Rows were measured at different times: compare speed-ups, not images per second.",
                f"tokenred {first['tokenred']}, torch {first['torch']}, timm {first['timm']}, seed "
                f"{first['seed']}.",
            ]
        lines += unused_notes(self.rows)
        for row in self.failures:
            words = [row["model"], row["strategy"], f"batch {row['batch_size']}"]
            words.append(f"images {row['image_size']}")
            why = " ".join(row["error"].split())[:500]
            lines.append(f"{row['status'].capitalize()}: {', '.join(words)}: {why}")
        by_reason: dict[str, list[str]] = {}
        for cell, reason in self.refused:
            by_reason.setdefault(reason, []).append(cell)
        for reason, cells in by_reason.items():
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            lines.append(f"Not possible: {cells[0]}{more}: {reason}")
        return lines + [f"To do: {cell}" for cell in self.todo]


@checked
def sweep(
    models: str | Path | Sequence[str | Path],
    strategies: Sequence[StrategyLike],
    path: str | Path | None = None,
    *,
    batch_sizes: Sequence[Size] = (1, 8, 32),
    image_sizes: Sequence[int | tuple[int, int] | None] = (None,),
    dtypes: Sequence[Literal["float32", "bfloat16", "float16"]] = ("float32",),
    compile: Sequence[Compile] = (False,),
    engines: Sequence[EngineName] = ("auto",),
    threads: Sequence[Size | None] = (None,),
    devices: Sequence[str] = ("cpu",),
    pairs: Annotated[int, Ge(2)] = 15,
    warmup: Count = 2,
    max_seconds: Magnitude | None = None,
    memory: bool = False,
    split: bool = False,
    random_weights: bool = False,
    seed: Count = 0,
    retry: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> Sweep:
    """Measure every strategy in every setting, against the dense model in the same setting.

    A grid (`tokenred.analysis.Grid`) with the metric ``speed``: cells that cannot run are skipped
    and listed with the reason, each result is stored at once, and a killed run can be continued. A
    cell that fails or runs out of memory is recorded as such, and the sweep continues.

    Args:
        models: names or paths, for `tokenred.models.load_model`; timm's models get random weights.
        strategies: as for `tokenred.analysis.parse_spec`.
        path: the store of the results. What it contains is not measured again, unless machine or
            versions differ. None keeps the results in memory.
        batch_sizes: images in a batch; this and the next six are combined in every way.
        image_sizes: a side, or (height, width); None for the model's own.
        dtypes: float32, bfloat16 or float16, of weights and images.
        compile: whether both models are compiled (yes or no), or a mode of ``torch.compile``.
        engines: attention of the reduced models (`tokenred.wrap`): auto, plain, two_calls, …
        threads: CPU threads of PyTorch; None for no change.
        devices: cpu, cuda, …
        pairs: timed runs of each strategy, each right after one of the dense model.
        warmup: number of uncounted pairs before those.
        max_seconds: fewer pairs, but at least 3, for a strategy that takes longer.
        memory: also measure peak memory, dense and reduced.
        split: also measure where the time of a forward goes.
        random_weights: for bundled models too; timm's have random weights in any case.
        seed: seed of images and bootstrap.
        retry: measure failed cells again.
        overwrite: start a new store.
        dry_run: measure nothing; the result lists what there is to measure.
        progress: show progress on standard error.

    Raises:
        ConfigError: for values out of range, or if no cell can run.
        UnknownNameError: for an unknown model or strategy.
        StoreError: for a missing folder, or a file that is something else.
    """
    speed = {"name": "speed", "pairs": pairs, "warmup": warmup, "max_seconds": max_seconds}
    names = [models] if isinstance(models, str | Path) else models
    if not isinstance(names, Sequence):
        raise ConfigError(f"expected names or paths of models, got {shown(models)}; see benchmark.")
    axes: dict[str, Any] = {
        "model": [_by_name(str(name), random_weights) for name in names],
        "image_size": image_sizes, "dtype": dtypes, "device": devices, "compile": compile,
        "attention": engines, "threads": threads, "batch_size": batch_sizes,
        "base": named_specs(strategies),
    }  # fmt: skip
    grid = Grid(
        axes=axes, invalid="skip", seed=seed, name="sweep",
        metrics=[speed, *["memory"] * memory, *[{"name": "split", "repeats": pairs}] * split],
    )  # fmt: skip
    place = None if path is None else Path(path).expanduser()
    there = place is not None and place.exists() and not overwrite
    with closing(Store(place if there else None, readonly=there and dry_run)) as store:
        plan = grid.plan(store)
        refused = tuple((_described(plan, c), str(c.error)) for c in plan.cells if c.error)
        if len(refused) == len(plan):
            raise ConfigError(
                f"no cell of the sweep can run; the first one, {refused[0][0]}: {refused[0][1]}"
            )
        if dry_run:
            todo = tuple(_described(plan, c) for c in plan.todo(store)[0] if not c.error)
            return Sweep(_rows(store, list(plan.results)), todo, refused, place)
    if overwrite and place is not None:
        for end in ("", "-wal", "-shm"):
            Path(f"{place}{end}").unlink(missing_ok=True)
    with closing(Store(place)) as store:
        run_plan(plan, store, Serial(), retry_failed=retry, progress=progress)
        return Sweep(_rows(store, list(plan.results)), (), refused, place)


def _rows(store: Store, keys: list[str] | None = None) -> tuple[dict[str, Any], ...]:
    """The rows of some cells that were measured now or earlier; None for all timings."""
    found = {
        row["key"]: _row(row)
        for row in store.rows(keys)
        if row["status"] != SKIPPED and (row["study"] == "sweep" or "speedup" in row)
    }
    return tuple(found[key] for key in (found if keys is None else keys) if key in found)


def _described(plan: Plan, cell: Cell) -> str:
    """A cell in words."""
    setting, row = plan.settings[cell.place], plan.row(cell)
    words = [row["model"], cell.label, f"batch {setting.batch_size}", row["dtype"], setting.device]
    if row["image_size"]:
        words.append(f"images {row['image_size']}")
    if setting.compile:
        words.append("compiled" if setting.compile is True else f"compiled, {setting.compile}")
    if setting.attention != "auto":
        words.append(f"engine {setting.attention}")
    if setting.threads:
        words.append(f"threads {setting.threads}")
    return ", ".join(map(str, words))


def _by_name(name: str, random_weights: bool) -> dict[str, Any]:
    """Arguments of `load_model` that download nothing."""
    from tokenred.models.embedded import EMBEDDED_MODELS  # imports timm

    own = name.casefold() in EMBEDDED_MODELS or Path(name).suffix == ".safetensors"
    return {"spec": name} if own and not random_weights else {"spec": name, "pretrained": False}


def _row(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the store as a row of a sweep, whose engine is that of the attention."""
    row = {**record(stored, {}), "engine": stored["axes"].get("attention", "auto")}
    if row["status"] != DONE and row["error"].startswith(OUT_OF_MEMORY):
        row["status"] = OUT_OF_MEMORY
    elif "allowed" in row:
        # For a method whose token counts depend on the image, the mean over the timed images.
        row["gmacs"] = row["dense_gmacs"] / row["allowed"]
    return row


def _tables(rows: Sequence[Row]) -> list[Table]:
    """The speeds, one row per cell, and where the time goes, as far as it was measured."""
    vary = [name for name in _HEADS if len({row.get(name) for row in rows}) > 1]
    # Settings that all rows share are in the title.
    shared = [name for name in _NAMED if name in rows[0] and name not in vary]
    title = ", ".join("images " * (n == "image_size") + str(rows[0][n]) for n in shared)
    cells: Columns = {
        head: partial(word, name=name)
        for name, head in _HEADS.items()
        if name in (*vary, "strategy", "batch_size")
    }
    left = len(cells)
    tables = [table_of(cells | figure_columns(rows), rows, title=title, left=left)]
    if split := [row for row in rows if "split_attention" in row]:
        used = {n: _NARROW.get(n, n) for n in LINES if any(row[f"split_{n}"] for row in split)}
        shares: Columns = {
            heading: partial(_share, name=name)
            for name, heading in {**used, "choosing": "select,\ngraph, fuse"}.items()
        }
        shares["cost of\nlooking"] = lambda row: f"{row['split_cost_of_looking']:+.1%}"
        tables.append(table_of(cells | shares, split, title="where the time goes", left=left))
    return tables


def _share(row: Row, name: str) -> str:
    return f"{row[f'split_{name}']:.1%}"
