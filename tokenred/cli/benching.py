"""``tokenred bench``: speed against the dense model, over settings, and where it starts to pay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenred.cli.console import claim, make_console, say_written
from tokenred.cli.model_options import Overwrite
from tokenred.core.errors import ConfigError

__all__ = ["bench_command"]

_FOLDER = "tokenred-out/bench"
_RESULTS, _CSV, _CHART = "results.jsonl", "results.csv", "break_even.png"
# On the embedded model, when nothing is asked for.
_STRATEGIES = ("gtp@0.65", "tome@0.65", "evit@0.65", "topk@0.65")
_BATCHES = (1, 4, 16, 64)
# A cell of the default run takes no longer, so that on a busy machine it stays within a minute.
_QUICK_SECONDS = 1.0
_NO_COMPILE = ("no", "false")


def bench_command(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="'digits' (embedded), a timm name (random weights), or a .safetensors file; "
            "repeat it.",
            show_default="digits",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s",
            help="NAME[:KEY=VALUE,…][@SHARE] or a .toml file; repeat it. gtp:P=4,alpha=0.2; "
            "tome@0.65 costs 0.65 of the dense model's GMACs.",
            show_default="gtp, tome, evit and topk @0.65",
        ),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", "-n", help="Images in a batch; repeat it.",
                     show_default="1, 4, 16, 64"),
    ] = None,
    image_size: Annotated[
        list[str] | None,
        typer.Option(help="A side or HEIGHTxWIDTH; repeat it.", show_default="the model's own"),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="float32, bfloat16 or float16, of weights and images; repeat it.",
                     show_default="float32"),
    ] = None,
    compile: Annotated[
        list[str] | None,
        typer.Option(help="no, yes, or a mode of torch.compile; both models are; repeat it.",
                     show_default="no"),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Timed runs of each strategy.")] = 15,
    max_seconds: Annotated[
        float | None,
        typer.Option(help="Fewer pairs, but 3 at least, where a cell takes longer.",
                     show_default="none"),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="CPU threads of PyTorch; repeat it.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, …; repeat it.", show_default="cpu")
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="Also: where the time of a forward goes.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also: peak memory, each in a process of its own.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of images, random weights and bootstrap.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Folder for {_RESULTS}, {_CSV} and {_CHART}.",
                     show_default=_FOLDER),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on behind an earlier run; measure nothing twice.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be measured, and leave.")
    ] = False,
    chart: Annotated[
        Path | None,
        typer.Option(help="Measure nothing: table and chart of an earlier run's .jsonl."),
    ] = None,
    progress: Annotated[
        bool, typer.Option("--progress/--no-progress", help="A bar on a terminal.")
    ] = True,
) -> None:  # fmt: skip
    """Measure strategies against the dense model, in every combination of settings.

    Without options: the embedded digits model, four methods at one budget, over the batch size.
    """
    if resume and overwrite:
        raise ConfigError("--resume keeps an earlier run, --overwrite replaces it; give one.")
    if chart is not None:
        _draw_only(chart, output, overwrite)
        return
    # Heavy libraries only now, so that --help is quick.
    from tokenred.analysis.plots.canvas import figure_bytes
    from tokenred.analysis.sweeps.results import Sweep
    from tokenred.analysis.sweeps.running import sweep
    from tokenred.core.files import prepare_folder, write_atomically

    folder = output or Path(_FOLDER)
    results = folder / _RESULTS
    if not dry_run:
        prepare_folder(folder, (_RESULTS, _CSV, _CHART), overwrite=resume or overwrite)
        claim(folder)
    quick = not (model or strategy or batch_size or image_size) and max_seconds is None
    found = sweep(
        model or "digits",
        strategy or _STRATEGIES,
        None if dry_run and not results.exists() else results,
        batch_sizes=batch_size or _BATCHES,
        image_sizes=[_size(text) for text in image_size] if image_size else (None,),
        dtypes=dtype or ("float32",),
        compile=[_mode(text) for text in compile] if compile else (False,),
        threads=threads or (None,),
        devices=device or ("cpu",),
        pairs=pairs,
        max_seconds=_QUICK_SECONDS if quick else max_seconds,
        memory=memory,
        split=split,
        seed=seed,
        overwrite=overwrite,
        dry_run=dry_run,
        progress=progress,
    )
    console = make_console()
    if dry_run:
        console.print(found)
        return
    written = [results]
    everything = Sweep.read(results)
    written.append(everything.to_csv(folder / _CSV, overwrite=True))
    if everything.done:
        written.append(write_atomically(folder / _CHART, figure_bytes(everything.plot())))
    console.print(found)
    say_written(console, written)
    if found.failures:
        raise typer.Exit(1)


def _draw_only(chart: Path, output: Path | None, overwrite: bool) -> None:
    from tokenred.analysis.plots.canvas import figure_bytes
    from tokenred.analysis.sweeps.results import Sweep
    from tokenred.core.files import check_new, prepare_folder, write_atomically

    found = Sweep.read(chart)
    figure = found.plot()
    if output is None:
        place = check_new(chart.with_suffix(".png"), overwrite=overwrite)
    else:
        (place,) = prepare_folder(output, (_CHART,), overwrite=overwrite)
    written = write_atomically(place, figure_bytes(figure))
    console = make_console()
    console.print(found)
    say_written(console, written)


def _size(text: str) -> int | tuple[int, int]:
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise ConfigError(f"expected --image-size as a side or HEIGHTxWIDTH, got {text!r}.")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _mode(text: str) -> bool | str:
    if text.casefold() in _NO_COMPILE:
        return False
    return True if text.casefold() in ("yes", "true") else text
