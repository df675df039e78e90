"""``tokenred bench``: speed against the dense model, over settings, and where it starts to pay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tokenred.analysis import Sweep, sweep
from tokenred.analysis.plots.canvas import figure_bytes
from tokenred.cli.console import claim_folder, make_console, say_written
from tokenred.cli.options import Strategies, options_of
from tokenred.core.errors import ConfigError
from tokenred.core.files import check_new, prepare_folder, write_atomically

__all__ = ["bench_command"]

_FOLDER = Path("tokenred-out/bench")
_RESULTS, _CSV, _CHART = "results.db", "results.csv", "break_even.png"
# On the embedded model, when nothing is asked for.
_MODELS, _BATCHES = ("digits",), (1, 4, 16, 64)
_STRATEGIES = ("gtp@0.65", "tome@0.65", "evit@0.65", "topk@0.65")
# A cell of the default run takes no longer, so that on a busy machine it stays within a minute.
_QUICK_SECONDS = 1.0


@options_of(
    sweep,
    leave_out="models strategies path batch_sizes image_sizes dtypes devices retry",
)
def bench_command(
    *,
    model: tuple[str, ...] = _MODELS,
    strategy: Strategies = _STRATEGIES,
    batch_size: Annotated[tuple[int, ...], Parameter(name=["--batch-size", "-n"])] = _BATCHES,
    image_size: tuple[str, ...] = (),
    dtype: tuple[str, ...] = ("float32",),
    compile: tuple[str, ...] = ("no",),
    threads: tuple[int, ...] = (),
    device: tuple[str, ...] = ("cpu",),
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    chart: Path | None = None,
    **options: Any,
) -> int:
    """Measure strategies against the dense model, in every combination of settings.

    Without options: the embedded digits model, four methods at one budget, over the batch size.

    Args:
        model: 'digits' (embedded), a timm name (random weights), or a .safetensors file; repeat it.
        batch_size: images in a batch; repeat it.
        image_size: a side or HEIGHTxWIDTH; repeat it; by default the model's own.
        dtype: float32, bfloat16 or float16, of weights and images; repeat it.
        compile: no, yes, or a mode of torch.compile; both models are; repeat it.
        threads: CPU threads of PyTorch; repeat it.
        device: cpu, cuda, …; repeat it.
        output: folder for results.db, results.csv and break_even.png; by default
            tokenred-out/bench.
        resume: go on behind an earlier run; measure nothing twice.
        overwrite: replace what is there from an earlier run.
        dry_run: list what would be measured, and leave.
        chart: measure nothing: table and chart of an earlier run's .db or .csv.
    """
    if resume and overwrite:
        raise ConfigError("--resume keeps an earlier run, --overwrite replaces it; give one.")
    if chart is not None:
        _draw_only(chart, output, overwrite)
        return 0
    folder = output or _FOLDER
    results = folder / _RESULTS
    if not dry_run:
        claim_folder(folder, (_RESULTS, _CSV, _CHART), overwrite=resume or overwrite)
    if (model, strategy, batch_size, image_size) == (_MODELS, _STRATEGIES, _BATCHES, ()):
        options.setdefault("max_seconds", _QUICK_SECONDS)
    found = sweep(
        model,
        strategy,
        None if dry_run and not results.exists() else results,
        batch_sizes=batch_size,
        image_sizes=[_size(text) for text in image_size] or (None,),
        dtypes=dtype,
        compile=[_mode(text) for text in compile],
        threads=threads or (None,),
        devices=device,
        overwrite=overwrite,
        dry_run=dry_run,
        **options,
    )
    console = make_console()
    if dry_run:
        console.print(found)
        return 0
    everything = Sweep.read(results)
    written = [results, everything.to_csv(folder / _CSV, overwrite=True)]
    if everything.done:
        written.append(write_atomically(folder / _CHART, figure_bytes(everything.plot())))
    console.print(found)
    say_written(console, written)
    return 1 if found.failures else 0


def _draw_only(chart: Path, output: Path | None, overwrite: bool) -> None:
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
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"expected --image-size as a side or HEIGHTxWIDTH, got {text!r}.")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _mode(text: str) -> bool | str:
    return {"no": False, "false": False, "yes": True, "true": True}.get(text.casefold(), text)
