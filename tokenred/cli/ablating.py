"""``tokenred ablate``: a grid of strategies, each result computed once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenred.cli.console import claim, make_console, say_written
from tokenred.cli.model_options import Device, Limit, Split
from tokenred.core.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from tokenred.analysis.study.grid import Grid
    from tokenred.analysis.study.study_file import StudyFile

__all__ = ["ablate_command"]

_STORE = Path("tokenred-out") / "ablation.db"
_RAW = ("base", "model", "data", "dtype")


def ablate_command(
    study: Annotated[
        Path | None, typer.Argument(help="A study file (TOML); options go before what it says.")
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis", "-a",
            help="NAME=VALUE,VALUE,…; repeat it. alpha=0.05,0.1 or scorer.aggregate=max,mean.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="A recipe, also with arguments: gtp, gtp:P=4.", show_default="gtp"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="'digits' (embedded), a timm name, or a .safetensors file.", show_default="digits"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="As of tokenred compare.", show_default="digits with the digits model"
        ),
    ] = None,
    split: Split = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Repeat it.", show_default="accuracy"),
    ] = None,
    limit: Limit = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in a batch.", show_default="64")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the chosen images.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, amp:bfloat16, …")] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", "-b", help="Share of the GMACs for every cell.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Compare each cell with: dense, base, none.", show_default="dense"),
    ] = None,
    invalid: Annotated[
        str | None,
        typer.Option(help="raise, or skip what the model cannot do.", show_default="raise"),
    ] = None,
    device: Device = None,
    engine: Annotated[
        str | None, typer.Option(help="serial, processes, ray.", show_default="serial")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Of the engine.", show_default="one a core")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each worker.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run what failed in an earlier run again.")
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            help="File of the results; a finished cell in it is not run again.",
            show_default=f"STUDY.db beside the study file, or {_STORE}",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for another grid that writes to the store.")
    ] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and their GMACs, run nothing.")
    ] = False,
    sort: Annotated[
        str | None, typer.Option(help="Column, the highest first.", show_default="top1")
    ] = None,
    rows: Annotated[int, typer.Option(help="At most so many rows in the table.")] = 40,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A CSV file.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the CSV file of an earlier run.")
    ] = False,
    progress: Annotated[
        bool, typer.Option("--progress/--no-progress", help="A bar on a terminal.")
    ] = True,
) -> None:  # fmt: skip
    """Run a grid of strategies; killed at any moment, the same call goes on where it was.

    Each cell is compared with the dense model, on the same images. The best come first.
    """
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis.study.study_file import StudyFile, read_study
    from tokenred.core.files import check_new

    told = StudyFile() if study is None else read_study(study)
    told.grid |= _given(
        base=base, model=model, data=data, split=split, metrics=metric, limit=limit,
        batch_size=batch_size, seed=seed, dtype=dtype, budget=budget, against=against,
        invalid=invalid, device=device,
    )  # fmt: skip
    told.run |= _given(engine=engine, workers=workers, threads=threads, address=address)
    if axis:
        told.grid["axes"] = {**told.grid.get("axes", {}), **_axes(axis)}
    grid = _grid(told)
    place = store or told.store or (_STORE if study is None else study.with_suffix(".db"))
    console = make_console()
    if dry_run:
        engines = {k: v for k, v in told.run.items() if k in ("engine", "workers", "threads")}
        _list(console, grid.dry_run(place, **engines), rows)
        return
    csv = output or told.output
    if csv is not None:
        csv = check_new(csv, overwrite=overwrite)
        claim(csv)
    if place == _STORE:
        place.parent.mkdir(exist_ok=True)
    found = grid.run(place, retry_failed=retry_failed, wait=wait, progress=progress, **told.run)
    written = None if csv is None else found.to_csv(csv, overwrite=overwrite)
    console.print(found.table(sort, rows))
    console.print()
    for line in found.footnotes():
        console.print(line, soft_wrap=True)
    if written is not None:
        say_written(console, written)
    if found.failed():
        raise typer.Exit(1)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _grid(told: StudyFile) -> Grid:
    """The grid, with the defaults of the command line."""
    asked = told.grid
    asked.setdefault("model", "digits")
    if asked["model"] == "digits":
        asked.setdefault("data", "digits")
    if "data" not in asked and "data" not in asked.get("axes", {}) and "metrics" not in asked:
        raise ConfigError(f"expected --data for the model {asked['model']!r}.")
    asked["against"] = None if asked.get("against") == "none" else asked.get("against", "dense")
    return told.make_grid()


def _axes(options: list[str]) -> dict[str, list[Any]]:
    """Axes from ``NAME=VALUE,…``; the same name again adds values.

    Raises:
        ConfigError: for text that cannot be read.
    """
    from tokenred.strategies.specs import read_arguments

    found: dict[str, list[Any]] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name.strip() or not text.strip():
            raise ConfigError(f"expected --axis NAME=VALUE,VALUE, got {option!r}.")
        name = name.strip()
        if name in _RAW:
            # A recipe with arguments has commas of its own.
            whole = ":" in text and name == "base"
            values = [text] if whole else [value.strip() for value in text.split(",")]
        else:
            values = list(read_arguments(f"values=[{text}]", option)["values"])
        found.setdefault(name, []).extend(values)
    return found


def _list(console: Console, frame: pd.DataFrame, rows: int) -> None:
    """What would run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("cell", "strategy", "model", "data", "GMACs", "tokens at the end", "status"):
        table.add_column(heading, no_wrap=heading != "status")
    for at, row in frame.head(rows).iterrows():
        known = row["gmacs"] == row["gmacs"]  # not NaN, as for a cell that cannot be done
        table.add_row(
            str(at),
            Text(row["strategy"]),
            Text(row["model"]),
            Text(row["data"]),
            f"{row['gmacs']:.4f}" if known else "",
            str(row["tokens"]).rpartition(" ")[2] if known else "",
            Text(f"{row['status']}: {row['why']}" if row["why"] else row["status"]),
        )
    console.print(table)
    if len(frame) > rows:
        console.print(f"… and {len(frame) - rows} more")
    counts = frame["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"{len(frame)} cells: {told}. Nothing was run.")
