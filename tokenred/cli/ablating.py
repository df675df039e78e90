"""``tokenred ablate``: a grid of strategies, each result computed once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenred.analysis import Grid
from tokenred.analysis.study.grid import StudyFile, read_study
from tokenred.cli.console import claim, make_console, say_written
from tokenred.cli.options import given_to, options_of
from tokenred.core.errors import ConfigError
from tokenred.core.files import check_new
from tokenred.strategies.specs import read_arguments

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ablate_command"]

_STORE = Path("tokenred-out/ablation.db")
_RAW = ("base", "model", "data", "dtype")


@options_of(Grid, Grid.run, leave_out="self axes cells where class_map", metrics="--metric -m",
            budget="--budget -b")  # fmt: skip
def ablate_command(
    study: Path | None = None,
    /,
    *,
    axis: Annotated[tuple[str, ...], Parameter(name=["--axis", "-a"])] = (),
    store: Path | None = None,
    dry_run: bool = False,
    sort: str | None = None,
    rows: int = 40,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    overwrite: bool = False,
    **options: Any,
) -> int:
    """Run a grid of strategies; killed at any moment, the same call goes on where it was.

    Each cell is compared with the dense model, on the same images (--against none leaves that
    out). The best come first. The model is the embedded one, if none is given.

    Args:
        study: a study file (TOML); options go before what it says.
        axis: NAME=VALUE,VALUE,…; repeat it. alpha=0.05,0.1 or scorer.aggregate=max,mean.
        store: file of the results; a finished cell in it is not run again. By default STUDY.db
            beside the study file, or tokenred-out/ablation.db.
        dry_run: list the cells and their GMACs, run nothing.
        sort: column, the highest first; by default top1.
        rows: at most so many rows in the table.
        output: a CSV file.
        overwrite: replace the CSV file of an earlier run.
    """
    told = StudyFile() if study is None else read_study(study)
    told.grid |= given_to(Grid, options)
    told.run |= given_to(Grid.run, options)
    if axis:
        told.grid["axes"] = {**told.grid.get("axes", {}), **_axes(axis)}
    grid = _grid(told)
    place = store or told.store or (_STORE if study is None else study.with_suffix(".db"))
    console = make_console()
    if dry_run:
        _list(console, grid.dry_run(place, **given_to(Grid.dry_run, told.run)), rows)
        return 0
    csv = output or told.output
    if csv is not None:
        csv = check_new(csv, overwrite=overwrite)
        claim(csv)
    if place == _STORE:
        place.parent.mkdir(exist_ok=True)
    found = grid.run(place, **told.run)
    written = None if csv is None else found.to_csv(csv, overwrite=overwrite)
    console.print(found.table(sort, rows))
    console.print()
    for line in found.footnotes():
        console.print(line, soft_wrap=True)
    if written is not None:
        say_written(console, written)
    return 1 if found.failed() else 0


def _grid(told: StudyFile) -> Grid:
    """The grid, with the defaults of the command line."""
    asked = told.grid
    if asked.setdefault("model", "digits") == "digits":
        asked.setdefault("data", "digits")
    if "data" not in asked and "data" not in asked.get("axes", {}) and "metrics" not in asked:
        raise ConfigError(f"expected --data for the model {asked['model']!r}.")
    against = asked.setdefault("against", "dense")
    asked["against"] = None if against == "none" else against
    return Grid(**asked)


def _axes(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Axes from ``NAME=VALUE,…``; the same name again adds values.

    Raises:
        ConfigError: for text that cannot be read.
    """
    found: dict[str, list[Any]] = {}
    for written in texts:
        name, _, text = (part.strip() for part in written.partition("="))
        if not name or not text:
            raise ConfigError(f"expected --axis NAME=VALUE,VALUE, got {written!r}.")
        if name == "base" and ":" in text:  # its arguments have commas of their own
            values = [text]
        elif name in _RAW:
            values = [value.strip() for value in text.split(",")]
        else:
            values = read_arguments(f"values=[{text}]", written)["values"]
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
            str(row["tokens"][-1]) if known else "",
            Text(f"{row['status']}: {row['why']}" if row["why"] else row["status"]),
        )
    console.print(table)
    if len(frame) > rows:
        console.print(f"… and {len(frame) - rows} more")
    counts = frame["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"{len(frame)} cells: {told}. Nothing was run.")
