"""``tokenred report`` and ``tokenred reproduce``: pages of results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tokenred.analysis.terminal_table import plain_table
from tokenred.cli.absent import refuse_models, refuse_store, refuse_weights, unreachable_host
from tokenred.cli.console import claim, say
from tokenred.cli.options import (
    FILE,
    OUTPUT,
    ClassMap,
    Overwrite,
    assignments,
    options_of,
    read_class_map,
)
from tokenred.core.errors import CheckpointError, ConfigError, UnknownNameError
from tokenred.core.files import check_folder, check_output, read_toml
from tokenred.data.places import check_fits, check_there

_MOST = 20
_STORE = "results.db"
_EXPERIMENTS = Path(__file__).parents[1] / "analysis" / "reproduction" / "gtp_paper.toml"


@options_of("tokenred.analysis:report", leave_out="sources path")
def report_command(
    source: Annotated[tuple[Path, ...], FILE],
    /,
    *,
    output: Annotated[Path, OUTPUT] = Path("report.html"),
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Report results as one HTML page.

    It is self-contained: tables, figures, and how they were produced. The tables can be sorted and
    searched. This also works while a grid is still running.

    Args:
        source: the store of a study (.db), or a CSV of a study, comparison, sweep or oversmoothing;
            several make one page.
        output: the page, ending in .html.
    """
    place = claim(check_output(output, (".html",), overwrite=overwrite))
    _refuse_unreadable(source)
    from tokenred.analysis import report

    say(written=[report(list(source), place, overwrite=overwrite, **options)])


@options_of("tokenred.analysis:reproduce", leave_out="tell checkpoints",
            experiments="--experiment -e", models="--model -m")  # fmt: skip
def reproduce_command(
    *,
    checkpoint: tuple[str, ...] = (),
    class_map: ClassMap = None,
    output: Annotated[Path, OUTPUT] = Path("tokenred-out/reproduction"),
    show: Annotated[bool, Parameter(name="--list")] = False,
    **options: Any,
) -> int:
    """Run the GTP paper's experiments.

    Each result is shown next to the published one. If it is killed, the same command resumes it. It
    exits with 1 if a result differs, or nothing could be run.

    Args:
        checkpoint: NAME=FILE: weights of a model; repeatable.
        output: folder for the store, the CSV and the page.
        show: list the experiments and exit.
    """
    if (imagenet := options.get("imagenet")) is not None:
        check_there(imagenet)
    sources = (imagenet is not None, options.get("demo"), options.get("costs"))
    if options.get("demo") and (options.get("models") or checkpoint):
        raise ConfigError("--demo chooses the model itself; leave out --model and --checkpoint.")
    if options.get("costs") and any(options.get(name) for name in ("limit", "quick", "speed")):
        raise ConfigError(
            "--costs uses no images and no timing; leave out --limit, --quick and --speed."
        )
    if not show and sum(map(bool, sources)) != 1:
        raise ConfigError(
            "expected one of --imagenet PATH, --demo (the bundled model and images) and --costs "
            "(GMACs only)."
        )
    checkpoints, options["class_map"] = _files(checkpoint), read_class_map(class_map)
    if not options.get("costs"):
        source = "digits" if options.get("demo") else str(imagenet)
        check_fits(source, options.get("split"), options["class_map"])
    _refuse_unknown(options.get("experiments") or (), options.get("models") or (), checkpoints)
    check_folder(output)
    if (kept := output / _STORE).exists():
        refuse_store(kept)
    if not show and imagenet is not None and not (output / _STORE).exists():
        _refuse_unreachable(options.get("models"), checkpoints)
    from tokenred.analysis import reproduce
    from tokenred.analysis.reproduction.experiments import EXPERIMENTS
    from tokenred.analysis.reproduction.reproduce import CSV, HTML, STORE

    if show:
        table = plain_table("", ["experiment", "what", "models"], left=3)
        table.columns[-1].no_wrap = False
        for experiment in EXPERIMENTS.values():
            table.add_row(experiment.name, experiment.title, ", ".join(experiment.backbones))
        say(table)
        return 0
    done = reproduce(
        output=output,
        checkpoints=checkpoints,
        tell=lambda line: print(line, file=sys.stderr),
        **options,
    )
    differing = [
        f"✗ {row['experiment']}, {row['model']}, {row['strategy']}: {row['metric']} "
        f"{row['ours']:.2f}, published {row['published']:.2f}, tolerance {row['tolerance']:.2f}"
        for row in done.differing.to_dict("records")
    ]
    more = [f"… and {len(differing) - _MOST} more"] if len(differing) > _MOST else []
    names = (CSV, HTML) if options.get("costs") else (STORE, CSV, HTML)
    say(done, *differing[:_MOST], *more, written=[output / name for name in names])
    return 1 if differing or done.ran_nothing else 0


@cache
def _table() -> dict[str, Any]:
    """The experiments and models of the paper."""
    return read_toml(_EXPERIMENTS)


def _refuse_unreadable(paths: Iterable[Path]) -> None:
    """Refuse what is neither a store nor a CSV, before matplotlib is imported."""
    from tokenred.analysis.plots.frames import read_frame
    from tokenred.analysis.study.pairing import is_store

    for path in map(Path.expanduser, paths):
        if is_store(path):
            refuse_store(path)
        else:
            read_frame(path)


def _refuse_unknown(
    experiments: Iterable[str], models: Sequence[str], files: Iterable[str]
) -> None:
    """Refuse what is no experiment and no model, and weights of models that are not run."""
    table = _table()
    for name in experiments:
        if name.casefold().replace(" ", "") not in table["experiments"]:
            raise UnknownNameError.of("experiment", name, table["experiments"])
    ours = {name.casefold(): name for name in table["backbones"]}
    others = tuple(name for name in models if name.casefold() not in ours)
    try:
        refuse_models({"model": others}, ())
    except UnknownNameError as error:
        raise UnknownNameError(f"{error} Of the paper: {', '.join(ours.values())}.") from None
    names = [*(models or ours.values()), *(told["spec"] for told in table["backbones"].values())]
    known = {each.casefold() for name in names for each in (name, name.partition(".")[0])}
    for name in files:
        if name.casefold() not in known:
            raise UnknownNameError.of("model of a --checkpoint", name, models or ours.values())


def _refuse_unreachable(models: Iterable[str] | None, files: Mapping[str, Path]) -> None:
    """Refuse to start if the weights of no model can be fetched."""
    ours = {name.casefold(): told for name, told in _table()["backbones"].items()}
    given, host = {name.casefold() for name in files}, ""
    for name in models or ours:
        told = ours.get(name.casefold(), {})
        spec = told.get("spec", name)
        if {name.casefold(), spec.casefold(), spec.partition(".")[0].casefold()} & given:
            return
        if "weights" in told:  # which timm does not have
            continue
        if not (host := unreachable_host(spec)):
            return
    raise CheckpointError(
        f"expected weights of a model, got none{f': {host} cannot be reached' if host else ''}. "
        "Pass --checkpoint NAME=FILE with downloaded weights; --demo and --costs need none."
    )


def _files(texts: Iterable[str]) -> dict[str, Path]:
    """Files of weights by model, from NAME=FILE."""
    told = assignments(texts, "--checkpoint", "NAME=FILE")
    found = {name: Path(str(file)) for name, file in told.items()}
    for name, file in found.items():
        if not file.expanduser().is_file():
            raise ConfigError(f"expected a file of weights for {name}, found none at {file}.")
        refuse_weights(None, file)
    return found
