"""``tokenred compare``: strategies side by side on one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokenred.cli.console import claim, make_console, say_written
from tokenred.cli.demo import DEMO_FOLDER, MAX_SECONDS, time_deit
from tokenred.cli.model_options import (
    BatchSize,
    Device,
    Limit,
    Mean,
    ModelName,
    Overwrite,
    Progress,
    Split,
    Std,
    Threads,
    Weights,
    Workers,
    data_for,
    model_title,
    read_numbers,
)
from tokenred.core.errors import ConfigError, OutputExistsError

__all__ = ["compare_command"]

_FOLDER = "tokenred-out"
_CSV, _PNG, _JOURNAL = "comparison.csv", "tradeoff.png", "comparison.jsonl"


def compare_command(
    model: ModelName = "digits",
    checkpoint: Weights = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained, to measure speed only.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="'digits' (embedded), 'cifar10[:PATH]', an image folder, a zip or a tar, "
            "or 'hf:NAME' from the Hugging Face hub.",
            show_default="digits with the digits model",
        ),
    ] = None,
    split: Split = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s",
            help="NAME[:KEY=VALUE,…][@SHARE] or a .toml file; repeat it. gtp:P=4,alpha=0.2; "
            "tome@0.65 costs 0.65 of the dense model's GMACs.",
            show_default="gtp, tome, evit, topk and random @0.85 and @0.65",
        ),
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(
            "--budget", "-b", help="Run every strategy at this share of the GMACs; repeat it."
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also lower resolution, fewer blocks and uniform dropping, at the same GMACs.",
        ),
    ] = False,
    smaller: Annotated[
        str | None, typer.Option(help="Also this model: a timm name, with published weights.")
    ] = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    pairs: Annotated[int, typer.Option(help="Timed runs of each strategy.")] = 9,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Measure speed.")] = True,
    threads: Threads = None,
    workers: Workers = 0,
    device: Device = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Images and convolutions as NHWC in memory.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of chosen images, timing inputs, bootstrap.")] = 0,
    mean: Mean = None,
    std: Std = None,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for {_CSV} and {_PNG}.", show_default=_FOLDER)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a stopped run was; start if none was.")
    ] = False,
    overwrite: Overwrite = False,
    progress: Progress = True,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="The comparison on embedded model and data, then DeiT-S's speed."
        ),
    ] = False,
) -> None:  # fmt: skip
    """Compare strategies on one model: cost, speed against dense, accuracy on the same images.

    Without options: the embedded digits model and images, five methods at two budgets.
    """
    if demo and (checkpoint or random_weights or strategy or budget or data or model != "digits"):
        raise ConfigError("--demo chooses model, data and strategies itself; leave those out.")
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis.comparison import compare
    from tokenred.analysis.plots.canvas import figure_bytes
    from tokenred.core.files import prepare_folder, write_atomically
    from tokenred.models import load_model
    from tokenred.strategies.specs import METHODS, parse_spec, same_budget

    specs: Any = [parse_spec(text) for text in strategy] if strategy else None
    if budget:
        specs = same_budget(budget, specs or METHODS)
    source = data_for(model, data)
    if random_weights and data:
        raise ConfigError("random weights have no accuracy; leave --data or --random-weights out.")
    if source is None and not random_weights:
        raise ConfigError(
            f"expected --data for the model {model!r}; or --random-weights to measure speed only."
        )
    if random_weights:
        source = None
    if source is None and not timing:
        raise ConfigError("nothing to measure: no data, and --no-timing.")
    if resume and overwrite:
        raise ConfigError("--resume keeps an earlier run, --overwrite replaces it; give one.")
    names = (_CSV, _PNG) if source else (_CSV,)
    folder = out or Path(DEMO_FOLDER if demo else _FOLDER)
    if demo and threads is None:
        # Threads that wait for each other on a busy machine would be all that is measured.
        threads = 1
    # The demo may replace its own earlier output, and nothing else.
    paths = prepare_folder(folder, names, overwrite=overwrite or (demo and out is None))
    claim(folder)
    journal = paths[0].with_name(_JOURNAL)
    if journal.exists() and not resume:
        if not (overwrite or demo):
            raise OutputExistsError(
                f"{journal} is what a stopped run has measured. Go on with it (--resume), choose "
                "another place, or replace it (--overwrite)."
            )
        journal.unlink()
    loaded = load_model(
        model,
        checkpoint=checkpoint,
        pretrained=False if random_weights else None,
        mean=read_numbers("--mean", mean),
        std=read_numbers("--std", std),
    )
    console = make_console()
    result = compare(
        loaded,
        source,
        specs,
        limit=limit,
        batch_size=batch_size,
        workers=workers,
        timing=timing,
        pairs=pairs,
        threads=threads,
        max_seconds=MAX_SECONDS if demo else None,
        device=device,
        channels_last=channels_last,
        baselines=baselines,
        smaller=smaller,
        seed=seed,
        split=split,
        name=model_title(model, random_weights),
        journal=journal,
        progress=progress,
    )
    written = [result.to_csv(paths[0], overwrite=True)]
    if source:
        written.append(write_atomically(paths[1], figure_bytes(result.plot())))
    journal.unlink()
    console.print(result)
    if sentence := result.resolution():
        console.print(sentence)
    if demo:
        console.print()
        written += time_deit(
            console, folder, threads=threads, seed=seed, device=device, progress=progress
        )
    say_written(console, written)
