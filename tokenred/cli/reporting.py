"""``tokenred report`` and ``tokenred reproduce``: pages of results."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tokenred.analysis.terminal_table import plain_table
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
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.files import check_output
from tokenred.data.places import check_there

_MOST = 20
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
    exits with 1 if a result differs.

    Args:
        checkpoint: NAME=FILE: weights of a model; repeatable.
        output: folder for the store, the CSV and the page.
        show: list the experiments and exit.
    """
    if (imagenet := options.get("imagenet")) is not None:
        check_there(imagenet)
    checkpoints, options["class_map"] = _files(checkpoint), read_class_map(class_map)
    _refuse_unknown(options.get("experiments") or ())
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
    return 1 if differing else 0


def _refuse_unknown(experiments: Iterable[str]) -> None:
    """Refuse what is no experiment, before PyTorch is imported."""
    known = re.findall(r"(?m)^\[experiments\.([\w-]+)\]", _EXPERIMENTS.read_text(encoding="utf-8"))
    for name in experiments:
        if name.casefold().replace(" ", "") not in known:
            raise UnknownNameError.of("experiment", name, known)


def _files(texts: Iterable[str]) -> dict[str, Path]:
    """Files of weights by model, from NAME=FILE."""
    told = assignments(texts, "--checkpoint", "NAME=FILE")
    found = {name: Path(str(file)) for name, file in told.items()}
    for name, file in found.items():
        if not file.expanduser().is_file():
            raise ConfigError(f"expected a file of weights for {name}, found none at {file}.")
    return found
