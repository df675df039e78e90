"""`sweep`: speed of models and strategies in many settings, as a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tokenred.analysis.lineup import named_specs
from tokenred.analysis.measure.split import LINES
from tokenred.analysis.result import Result, count, interval, number, table_of
from tokenred.analysis.study.cell import DONE, OUT_OF_MEMORY, SKIPPED, Cell
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.plan import Plan
from tokenred.analysis.study.pool import Serial
from tokenred.analysis.study.rows import unused_in, unused_notes
from tokenred.analysis.study.run import run_plan
from tokenred.analysis.study.store import Store
from tokenred.core.errors import ConfigError, DataError
from tokenred.core.values import Count, Magnitude, Size, checked
from tokenred.strategies.specs import StrategyLike

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Columns = dict[str, Callable[[Row], str]]
_SETTINGS = {
    "model": "model", "image_size": "images", "dtype": "dtype", "compile": "compiled",
    "engine": "engine", "threads": "threads", "device": "device",
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
        with closing(Store(path, readonly=not Path(path).is_file())) as store:
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
        parts: list[Any] = [_speeds(self.rows), Text()] if self.rows else []
        if split := [row for row in self.rows if "split_attention" in row]:
            parts += [_split(split), Text()]
        return Group(*parts, *map(Text, self.footnotes()))

    def footnotes(self) -> list[str]:
        """How the tables were measured, what failed and what was refused."""
        lines = []
        if self.done:
            first, pairs = self.done[0], sorted({row["pairs"] for row in self.done})
            shown = str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
            lines += [
                f"Speed: {shown} pairs with timm's fused dense model right before each run; "
                f"medians. {first['processor']}, {first['cores']} cores, tokenred "
                f"{first['tokenred']}, torch {first['torch']}, timm {first['timm']}, seed "
                f"{first['seed']}.",
                "Realised fraction: measured speed-up ÷ the speed-up that the GMACs allow.",
                "Rows were measured at different moments: compare speed-ups, not images a second.",
            ]
        if any("peak_bytes" in row for row in self.done):
            lines.append(
                "Peak: of PyTorch's allocations in a forward, without weights, images, and buffers "
                "outside PyTorch."
            )
        lines += unused_notes(unused_in(self.rows))
        for row in self.failures:
            words = [row["model"], row["strategy"], f"batch {row['batch_size']}"]
            words.append(f"images {row['image_size']}")
            lines.append(f"{row['status'].capitalize()}: {', '.join(words)}: {row['error']}")
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
    dtypes: Sequence[str] = ("float32",),
    compile: Sequence[bool | str] = (False,),
    engines: Sequence[str] = ("auto",),
    threads: Sequence[int | None] = (None,),
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
        compile: whether to compile both models, or a mode of ``torch.compile``.
        engines: attention of the reduced models (`tokenred.wrap`): auto, plain, two_calls, …
        threads: CPU threads of PyTorch; None for no change.
        devices: cpu, cuda, …
        pairs: timed runs of each strategy, each right after one of the dense model.
        warmup: number of uncounted pairs before those.
        max_seconds: fewer pairs, but at least 3, for a strategy that takes longer.
        memory: also measure peak memory, dense and reduced.
        split: also measure where the time of a forward goes.
        random_weights: for embedded models too; timm's have random weights in any case.
        seed: seed of images and bootstrap.
        retry: measure failed cells again.
        overwrite: start a new store.
        dry_run: measure nothing; the result lists what there is to measure.
        progress: show progress on standard error.

    Raises:
        ConfigError: for values out of range, or if no cell can run.
        UnknownNameError: for an unknown model or strategy.
        DataError: for a missing folder.
        StoreError: for a file that is something else.
    """
    speed = {"name": "speed", "pairs": pairs, "warmup": warmup, "max_seconds": max_seconds}
    names = [models] if isinstance(models, str | Path) else models
    axes: dict[str, Any] = {
        "model": [_by_name(str(name), random_weights) for name in names],
        "image_size": image_sizes, "dtype": dtypes, "device": devices, "compile": compile,
        "attention": engines, "threads": threads, "batch_size": batch_sizes,
        "base": named_specs(strategies),
    }  # fmt: skip
    for name, values in axes.items():
        listed = list(map(str, values)) if isinstance(values, list | tuple) else []
        if len(set(listed)) < len(listed):
            raise ConfigError(f"expected each of {name} once, got {', '.join(listed)}.")
    grid = Grid(
        axes=axes, invalid="skip", seed=seed, name="sweep",
        metrics=[speed, *["memory"] * memory, *[{"name": "split", "repeats": pairs}] * split],
    )  # fmt: skip
    place = None if path is None else Path(path).expanduser()
    if place is not None and not place.parent.is_dir():
        raise DataError(
            f"expected a folder for the results at {place.parent}, found none; create it."
        )
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
        if row["status"] != SKIPPED and (row["study"] == "sweep" or "speedup" in row["metrics"])
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
        words.append(count(setting.threads, "thread"))
    return ", ".join(map(str, words))


def _by_name(name: str, random_weights: bool) -> dict[str, Any]:
    """Arguments of `load_model` that download nothing."""
    from tokenred.models.embedded import EMBEDDED_MODELS  # imports timm

    own = name.casefold() in EMBEDDED_MODELS or Path(name).suffix == ".safetensors"
    return {"spec": name} if own and not random_weights else {"spec": name, "pretrained": False}


def _row(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the store as a row of a sweep."""
    figures = dict(stored["metrics"])
    status, tokens = stored["status"], figures.pop("tokens", None)
    if status != DONE:
        status = OUT_OF_MEMORY if stored["error"].startswith(OUT_OF_MEMORY) else status
    elif "allowed" in figures:
        # For a method whose token counts depend on the image, the mean over the timed images.
        figures["gmacs"] = figures["dense_gmacs"] / figures["allowed"]
    kept = ("model", "strategy", "method", "batch_size", "image_size", "dtype", "compile", "config")
    row = {"key": stored["key"], "status": status, **{name: stored[name] for name in kept}}
    row["engine"] = stored["axes"].get("attention", "auto")
    row |= stored["machine"]
    if tokens:
        row["tokens"] = tokens[0]
    if stored["error"]:
        row["error"] = " ".join(stored["error"].split())[:500]
    return row | figures | {
        "when": stored["created"], "seconds": round(stored["seconds"], 3), "seed": stored["seed"],
    }  # fmt: skip


def _speeds(rows: Sequence[Row]) -> Table:
    """The values, one row per cell; settings that all rows share are in the title."""
    columns, title = _head(rows)
    left = len(columns) - 1
    columns |= {
        "GMACs\nan image": lambda row: number(row, "gmacs", 3),
        "images\na second": lambda row: number(
            row, "images_per_second", 0 if row.get("images_per_second", 0) >= 100 else 1
        ),
        "speed-up over dense\n[90% interval]": lambda row: (
            interval(row, "speedup") if row["status"] == DONE else row["status"]
        ),
        "the GMACs\nallow": lambda row: number(row, "allowed", 2),
        "realised fraction\n[90% interval]": lambda row: interval(row, "realised"),
    }
    if any("peak_bytes" in row for row in rows):
        columns["peak MiB\n(dense)"] = _memory
    return table_of(columns, rows, title=title, left=left)


def _split(rows: Sequence[Row]) -> Table:
    """Shares of a forward, one row per cell whose time was split."""
    columns, _ = _head(rows)
    left = len(columns) - 1
    used = {n: _NARROW.get(n, n) for n in LINES if any(row[f"split_{n}"] for row in rows)}
    for name, heading in {**used, "choosing": "select,\ngraph, fuse"}.items():
        columns[heading] = partial(_share, name=name)
    columns["cost of\nlooking"] = lambda row: f"{row['split_cost_of_looking']:+.1%}"
    return table_of(columns, rows, title="where the time goes", left=left)


def _head(rows: Sequence[Row]) -> tuple[Columns, str]:
    """The columns that identify a cell, and the settings that all rows share, in words."""
    vary = [name for name in _SETTINGS if len({row.get(name) for row in rows}) > 1]
    columns: Columns = {_SETTINGS[name]: partial(_word, name=name) for name in vary}
    columns["strategy"] = lambda row: row["strategy"]
    columns["batch"] = lambda row: str(row["batch_size"])
    words = {name: str(rows[0].get(name, "")) for name in _NAMED} if rows else {}
    if "image_size" in words:
        words["image_size"] = f"images {words['image_size']}"
    return columns, ", ".join(word for name, word in words.items() if name not in vary)


def _word(row: Row, name: str) -> str:
    return str(row.get(name, ""))


def _share(row: Row, name: str) -> str:
    return f"{row[f'split_{name}']:.1%}"


def _memory(row: Row) -> str:
    if "peak_bytes" not in row:
        return ""
    return f"{row['peak_bytes'] / 2**20:.1f} ({row['dense_peak_bytes'] / 2**20:.1f})"
