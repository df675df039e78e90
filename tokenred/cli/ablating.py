"""``tokenred ablate``: a grid of strategies, each result computed once."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from tokenred.analysis.result import count, number
from tokenred.analysis.terminal_table import plain_table
from tokenred.cli.absent import refuse_devices, refuse_missing, unreachable_host
from tokenred.cli.console import claim, make_folder, say
from tokenred.cli.declared import declared
from tokenred.cli.options import (
    OUTPUT,
    WEIGHTS,
    ClassMap,
    Overwrite,
    given_to,
    model_for,
    options_of,
    read_class_map,
    read_size,
    valid,
)
from tokenred.cli.refusing import axes_of, read_axes, refuse_budgets, refuse_unknown
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.files import check_output
from tokenred.core.values import SETTING_TYPES, Size, parameters_of
from tokenred.data.places import check_fits, check_there, no_weights

if TYPE_CHECKING:
    import pandas as pd

_GRID = "tokenred.analysis:Grid"
_STORE = Path("tokenred-out/ablation.db")
_ABOUT = {
    "metrics": "accuracy, speed, memory, split or one of your own; repeatable. GMACs and tokens "
    "are always included.",
    "engine": "serial, processes or ray.",
    "data": "'digits' (bundled; the default with its model), 'cifar10[:PATH]', an image folder, a "
    "zip or a tar.",
    "model": "'digits' or 'cifar10_vit' (bundled), a timm name, or a .safetensors file.",
    "base": "what each cell starts from: NAME[:KEY=VALUE,…][@SHARE], a .toml file, or dense.",
    "reference": "the model that timings are compared with, and that --against dense refers to; by "
    "default each cell's own dense model.",
}
_OF_ACCURACY = (
    "top1", "top5", "images", "unreadable", "difference", "difference_low", "difference_high",
    "p_value",
)  # fmt: skip


@options_of(_GRID, f"{_GRID}.run", leave_out="self axes cells where class_map",
            metrics="--metric -m", budget="--budget -b", about=_ABOUT)  # fmt: skip
def ablate_command(
    study: Path | None = None,
    /,
    *,
    axis: Annotated[tuple[str, ...], Parameter(name=["--axis", "-a"])] = (),
    class_map: ClassMap = None,
    image_size: str | None = None,
    checkpoint: Annotated[Path | None, WEIGHTS] = None,
    random_weights: bool = False,
    compile: bool = False,
    store: Path | None = None,
    dry_run: bool = False,
    sort: str | None = None,
    rows: Annotated[int, valid(Size, "--rows")] = 40,
    output: Annotated[Path | None, OUTPUT] = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> int:
    """Run a grid of strategies, each cell once.

    If it is killed, the same command resumes it. Each cell is compared with the dense model on the
    same images (unless --against none is given). The best cells come first. Without --model, the
    bundled one is used.

    Args:
        study: a study file (TOML); options override it.
        axis: NAME=VALUE,VALUE,…, such as alpha=0.05,0.1 or scorer.aggregate=max,mean; repeat it.
        image_size: a side or HEIGHTxWIDTH that models are resized to; by default their own.
        checkpoint: weights for a timm name, in place of the published ones.
        random_weights: untrained weights, for measuring speed or trying things out.
        compile: time compiled models; --axis compile=MODE for a mode of torch.compile.
        store: file for the results; finished cells in it are not run again. By default STUDY.db
            next to the study file, or tokenred-out/ablation.db.
        dry_run: list the cells and their GMACs without running them.
        sort: the column to sort by, highest first; by default top1.
        rows: maximum number of rows in the table.
        output: a CSV file.
    """
    asked: dict[str, Any] = {}
    ran: dict[str, Any] = {}
    place, axes = store or _STORE, read_axes(axis)
    refuse_missing(None, study)  # after the axes: without its =, an axis leaves its values here
    if study is not None:
        from tokenred.analysis.study.study_file import read_study

        told = read_study(study, parameters_of(declared(_GRID)))
        asked, ran, output = told.grid, told.run, output or told.output
        place = store or told.store or study.with_suffix(".db")
    asked |= given_to(_GRID, options)
    if both := [name for name in options if name in axes]:
        raise ConfigError(
            f"expected --{both[0]} or --axis {both[0]}=…, got both. To compare with a strategy, "
            "use --against STRATEGY."
        )
    ran |= given_to(f"{_GRID}.run", options)
    if axes:
        asked["axes"] = {**asked.get("axes", {}), **axes}
    if class_map is not None:
        asked["class_map"] = read_class_map(class_map)
    if image_size is not None:
        asked["image_size"] = read_size(image_size)
    if compile:
        asked["compile"] = True
    _fill_in(asked, random_weights, checkpoint)
    varied = axes_of(asked)
    if study is not None:
        refuse_unknown(asked | ran)
        refuse_devices(asked | ran, varied.get("device", ()))
    models, sources = (_listed(varied.get(name, asked.get(name))) for name in ("model", "data"))
    for source in sources:
        if isinstance(source, str):
            check_there(source)
            check_fits(source, asked.get("split"), asked.get("class_map"))
    if output is not None and not dry_run:
        claim(check_output(output, (".csv",), overwrite=overwrite))
    if sort is not None and tuple(asked.get("metrics", ("accuracy",))) == ("accuracy",):
        _check_column(sort, list(asked.get("axes") or ()))
    _refuse_unreachable(models, place)
    from tokenred.analysis import Grid

    grid = Grid(**asked)
    if dry_run:
        _list(grid.dry_run(place, **given_to(f"{_GRID}.dry_run", ran)), rows)
        return 0
    if place == _STORE:
        make_folder(place.parent)
    found = grid.run(place, **ran)
    written = [] if output is None else [found.to_csv(output, overwrite=overwrite)]
    say(found.table(sort, rows), "", *found.footnotes(), written=written)
    return 1 if found.failed() else 0


def _fill_in(asked: dict[str, Any], random_weights: bool, checkpoint: Path | None) -> None:
    """The command line's defaults for a grid."""
    axes = asked.setdefault("axes", {})
    model, data = (asked.get(name, axes.get(name)) for name in ("model", "data"))
    if checkpoint is not None and (random_weights or not isinstance(asked.get("model"), str)):
        raise ConfigError(
            "expected --model with --checkpoint: one timm name, whose weights the file has; and no "
            "--random-weights."
        )
    if random_weights:
        if data is not None and "metrics" not in asked:
            raise ConfigError(
                "accuracy means nothing with random weights; leave out --data or --random-weights."
            )
        if "accuracy" in asked.setdefault("metrics", ["speed"]):
            raise ConfigError(
                "accuracy means nothing with random weights; leave it or --random-weights out."
            )
        names = _listed(axes.get("model", model or "digits"))
        random = [{"spec": name, "pretrained": False} for name in names]
        if "model" in axes:
            axes["model"] = random
        else:
            (asked["model"],) = random
    elif data is not None or "metrics" not in asked or model in (None, "digits"):
        models, sources = _listed(model), _listed(data)
        found = zip(*(model_for(one, source) for one in models for source in sources), strict=True)
        for name, values in zip(("model", "data"), found, strict=True):
            if any(value != values[0] for value in values) and name not in axes:
                raise ConfigError(f"expected --{name}: the values on the axes have different ones.")
            asked |= {} if name in axes else {name: values[0]}
    if checkpoint is not None:
        asked["model"] = {"spec": asked["model"], "checkpoint": str(checkpoint)}
    against = asked.setdefault("against", "dense")
    if against == "base" and not {*axes} - {*SETTING_TYPES, "model", "data", "base"}:
        raise ConfigError(
            "expected axes that change the base, or another reference than 'base': each cell would "
            "be compared with itself. Pass a strategy as --against."
        )
    base = asked.get("base")
    if asked.get("budget") is not None and isinstance(base, str):
        refuse_budgets([base], "got --budget as well; leave one of them out")
    asked["against"] = None if against == "none" else against


def _refuse_unreachable(models: list[Any], store: Path) -> None:
    """Refuse models whose weights cannot be fetched, unless the store knows them."""
    for name in models:
        if isinstance(name, str) and (host := unreachable_host(name)):
            from tokenred.analysis.study.store import Store

            known = list[Any]()
            if store.exists():
                with closing(Store(store, readonly=True)) as opened:
                    known = [row["model"] for row in opened.rows()]
            if name not in known:
                raise no_weights(name, f"{host} cannot be reached")


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _check_column(name: str, axes: list[str]) -> None:
    """Refuse a column that no row will have if only the accuracy is measured."""
    from tokenred.analysis.study.rows import OF_EVERY_ROW

    known = {*axes, *OF_EVERY_ROW, *_OF_ACCURACY}
    if name not in known:
        raise UnknownNameError.of("column", name, known)


def _list(frame: pd.DataFrame, rows: int) -> None:
    found = {name: list(dict.fromkeys(frame[name])) for name in ("model", "data")}
    varied = [name for name, values in found.items() if len(values) > 1]
    heads = ["cell", *varied, "GMACs", "tokens at\nthe end", "status", "strategy"]
    table = plain_table("", heads, left=1 + len(varied), keys=1)
    for column in table.columns[-2:]:
        column.justify = "left"
    table.columns[-1].no_wrap = False
    for at, row in frame.head(rows).iterrows():
        cost = number(row, "gmacs", 4)  # missing for a cell that cannot run
        tokens = str(row["tokens"][-1]) if cost else ""
        cells = (str(at), *row[varied], cost, tokens, row["status"], row["strategy"])
        table.add_row(*map(Text, cells))
    counts = frame["status"].value_counts()
    statuses = ", ".join(f"{cells} {status}" for status, cells in counts.items())
    more = [f"… and {len(frame) - rows} more"] if len(frame) > rows else []
    same = [f"{name} {values[0]}" for name, values in found.items() if name not in varied]
    failed = frame[frame["why"] != ""].head(rows).to_dict("records")
    reasons = [f"{row['status']}: {row['strategy']}: {row['why']}" for row in failed]
    told = ", ".join([count(len(frame), "cell"), *same])
    others = [
        f"{name} ({cost:.4f} GMACs, {status})" for name, cost, status in frame.attrs["references"]
    ]
    more_others = f" and {len(others) - 4} more" if len(others) > 4 else ""
    against = [f"Compared with {', '.join(others[:4])}{more_others}."] if others else []
    say(table, *more, "", *reasons, *against, f"{told}: {statuses}. Nothing was run.")
