"""``tokenred ablate``: a grid of strategies, each result computed once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from tokenred.analysis.result import number, plain_table
from tokenred.cli.console import claim, say
from tokenred.cli.options import (
    FILE,
    OUTPUT,
    ClassMap,
    Overwrite,
    given_to,
    model_for,
    options_of,
    read_class_map,
)
from tokenred.core.errors import ConfigError
from tokenred.core.files import check_new
from tokenred.core.notation import read_arguments

if TYPE_CHECKING:
    import pandas as pd

_GRID = "tokenred.analysis:Grid"
_STORE = Path("tokenred-out/ablation.db")
_RAW = ("base", "model", "data", "dtype")


@options_of(_GRID, f"{_GRID}.run", leave_out="self axes cells where class_map",
            metrics="--metric -m", budget="--budget -b")  # fmt: skip
def ablate_command(
    study: Annotated[Path | None, FILE] = None,
    /,
    *,
    axis: Annotated[tuple[str, ...], Parameter(name=["--axis", "-a"])] = (),
    class_map: ClassMap = None,
    random_weights: bool = False,
    store: Path | None = None,
    dry_run: bool = False,
    sort: str | None = None,
    rows: int = 40,
    output: Annotated[Path | None, OUTPUT] = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> int:
    """Run a grid of strategies, each cell once.

    If it is killed, the same command resumes it. Each cell is compared with the dense model on the
    same images (unless --against none is given). The best cells come first. Without --model, the
    embedded one is used.

    Args:
        study: a study file (TOML); options override it.
        axis: NAME=VALUE,VALUE,…, such as alpha=0.05,0.1 or scorer.aggregate=max,mean; repeat it.
        random_weights: untrained weights, for measuring speed or trying things out.
        store: file for the results; finished cells in it are not run again. By default STUDY.db
            next to the study file, or tokenred-out/ablation.db.
        dry_run: list the cells and their GMACs without running them.
        sort: the column to sort by, highest first; by default top1.
        rows: maximum number of rows in the table.
        output: a CSV file.
    """
    asked: dict[str, Any] = {}
    ran: dict[str, Any] = {}
    place, axes = store or _STORE, _axes(axis)
    if study is not None:
        from tokenred.analysis.study.grid import read_study

        told = read_study(study)
        asked, ran, output = told.grid, told.run, output or told.output
        place = store or told.store or study.with_suffix(".db")
    asked |= given_to(_GRID, options)
    ran |= given_to(f"{_GRID}.run", options)
    if axes:
        asked["axes"] = {**asked.get("axes", {}), **axes}
    if class_map is not None:
        asked["class_map"] = read_class_map(class_map)
    _fill_in(asked, random_weights)
    if output is not None and not dry_run:
        claim(check_new(output, overwrite=overwrite))
    from tokenred.analysis import Grid

    grid = Grid(**asked)
    if dry_run:
        _list(grid.dry_run(place, **given_to(f"{_GRID}.dry_run", ran)), rows)
        return 0
    if place == _STORE:
        place.parent.mkdir(exist_ok=True)
    found = grid.run(place, **ran)
    written = [] if output is None else [found.to_csv(output, overwrite=overwrite)]
    say(found.table(sort, rows), "", *found.footnotes(), written=written)
    return 1 if found.failed() else 0


def _fill_in(asked: dict[str, Any], random_weights: bool) -> None:
    """The command line's defaults for a grid."""
    axes = asked.get("axes", {})
    model, data = (asked.get(name, axes.get(name)) for name in ("model", "data"))
    if random_weights:
        if "accuracy" in asked.setdefault("metrics", ["speed"]):
            raise ConfigError(
                "accuracy means nothing with random weights; leave it or --random-weights out."
            )
        asked["model"] = {"spec": asked.get("model", "digits"), "pretrained": False}
    elif data is not None or "metrics" not in asked or model in (None, "digits"):
        chosen = zip(("model", "data"), model_for(model, data), strict=True)
        asked |= {name: value for name, value in chosen if name not in axes}
    against = asked.setdefault("against", "dense")
    asked["against"] = None if against == "none" else against


def _axes(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Axes from ``NAME=VALUE,…``; repeating a name adds values."""
    found: dict[str, list[Any]] = {}
    for written in texts:
        name, _, text = (part.strip() for part in written.partition("="))
        if not name or not text:
            raise ConfigError(f"expected --axis NAME=VALUE,VALUE, got {written!r}.")
        if name == "base" and ":" in text:  # its arguments contain commas
            values = [text]
        elif name in _RAW:
            values = [value.strip() for value in text.split(",")]
        else:
            values = read_arguments(f"values=[{text}]", written)["values"]
        found.setdefault(name, []).extend(values)
    return found


def _list(frame: pd.DataFrame, rows: int) -> None:
    heads = ["cell", "strategy", "model", "data", "GMACs", "tokens at\nthe end", "status"]
    table = plain_table("", heads, left=len(heads), keys=2)
    table.columns[-1].no_wrap, table.columns[-1].min_width = False, 10
    for at, row in frame.head(rows).iterrows():
        cost = number(row, "gmacs", 4)  # missing for a cell that cannot run
        tokens = str(row["tokens"][-1]) if cost else ""
        status = f"{row['status']}: {row['why']}" if row["why"] else row["status"]
        cells = (str(at), row["strategy"], row["model"], row["data"], cost, tokens, status)
        table.add_row(*map(Text, cells))
    counts = frame["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    more = [f"… and {len(frame) - rows} more"] if len(frame) > rows else []
    say(table, *more, f"{len(frame)} cells: {told}. Nothing was run.")
