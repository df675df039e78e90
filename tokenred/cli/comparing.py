"""``tokenred compare``: strategies side by side on one model, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from rich.console import Console

from tokenred.analysis import compare, parse_spec, same_budget
from tokenred.analysis.plots.canvas import figure_bytes
from tokenred.cli.console import claim_folder, make_console, say_written
from tokenred.cli.options import DataOptions, ModelOptions, Strategies, options_of
from tokenred.core.errors import ConfigError, OutputExistsError
from tokenred.core.files import write_atomically
from tokenred.models import load_model
from tokenred.strategies.specs import METHODS

__all__ = ["compare_command"]

_FOLDER, _DEMO_FOLDER = Path("tokenred-out"), Path("tokenred-out/demo")
_CSV, _PNG, _STORE = "comparison.csv", "tradeoff.png", "comparison.db"

# The second half of the demo: the published settings on a model of a size that people use.
_DEIT = "deit_small_patch16_224"
_PUBLISHED = ("gtp:P=8", "tome:r=8", "evit:keep_rate=0.7", "topk:keep_rate=0.7",
              "random:keep_rate=0.7")  # fmt: skip
# On a busy machine fewer pairs, so that a demo stays one.
_DEMO_SECONDS = 30


@options_of(compare, leave_out="strategies class_map name store")
def compare_command(
    *,
    model: ModelOptions = ModelOptions(),
    data: DataOptions = DataOptions(),
    strategy: Strategies = (),
    budget: Annotated[tuple[float, ...], Parameter(name=["--budget", "-b"])] = (),
    out: Annotated[Path | None, Parameter(name=["--out", "--output", "-o"])] = None,
    resume: bool = False,
    overwrite: bool = False,
    demo: bool = False,
    **options: Any,
) -> None:
    """Compare strategies on one model: cost, speed against dense, accuracy on the same images.

    Without options: the embedded digits model and images; gtp, tome, evit, topk and random at 0.85
    and 0.65 of the dense model's GMACs.

    Args:
        budget: run every strategy at this share of the dense model's GMACs; repeat it.
        out: folder for comparison.csv and tradeoff.png; by default tokenred-out.
        resume: go on where a stopped run was; start if none was.
        overwrite: replace what is there from an earlier run.
        demo: the comparison on embedded model and data, then DeiT-S's speed.
    """
    if demo and (model != ModelOptions() or strategy or budget or data.data):
        raise ConfigError("--demo chooses model, data and strategies itself; leave those out.")
    specs: Any = [parse_spec(text) for text in strategy] if strategy else None
    if budget:
        specs = same_budget(budget, specs or METHODS)
    if resume and overwrite:
        raise ConfigError("--resume keeps an earlier run, --overwrite replaces it; give one.")
    source = _source(model, data, options.get("timing", True))
    if demo:
        options.setdefault("max_seconds", _DEMO_SECONDS)
        # Threads that wait for each other on a busy machine would be all that is measured.
        options.setdefault("threads", 1)
    names = (_CSV, _PNG) if source else (_CSV,)
    folder = out or (_DEMO_FOLDER if demo else _FOLDER)
    # The demo may replace its own earlier output, and nothing else.
    csv, *picture = claim_folder(folder, names, overwrite=overwrite or (demo and out is None))
    store = csv.with_name(_STORE)
    if store.exists() and not resume:
        if not (overwrite or demo):
            raise OutputExistsError(
                f"{store} is what a stopped run has measured. Go on with it (--resume), choose "
                "another place, or replace it (--overwrite)."
            )
        store.unlink()
    result = compare(
        model.load(), source, specs, name=model.title, store=store, **data.arguments(),
        **options,
    )  # fmt: skip
    written = [result.to_csv(csv, overwrite=True)]
    written += [write_atomically(path, figure_bytes(result.plot())) for path in picture]
    store.unlink()
    console = make_console()
    console.print(result)
    if sentence := result.resolution():
        console.print(sentence)
    if demo:
        console.print()
        written.append(_time_deit(console, folder, data, options["threads"]))
    say_written(console, written)


def _source(model: ModelOptions, data: DataOptions, timing: bool) -> str | None:
    """The images; None for speed only."""
    if not model.random_weights:
        return data.source(model)
    if data.data:
        raise ConfigError("random weights have no accuracy; leave --data or --random-weights out.")
    if not timing:
        raise ConfigError("nothing to measure: no data, and --no-timing.")
    return None


def _time_deit(console: Console, folder: Path, data: DataOptions, threads: int) -> Path:
    """Time the published settings on DeiT-S with random weights, and print the table.

    Speed does not depend on the values of the weights; accuracy does, and is left out.
    """
    with torch.random.fork_rng():
        torch.manual_seed(data.seed)
        deit = load_model(_DEIT, pretrained=False)
    result = compare(
        deit, None, _PUBLISHED, batch_size=8, pairs=5, warmup=1, max_seconds=_DEMO_SECONDS,
        threads=threads, device=data.device, seed=data.seed, progress=data.progress,
        name=f"{_DEIT} with random weights (no download): speed only, accuracy not shown",
    )  # fmt: skip
    console.print(result)
    return result.to_csv(folder / "deit_small_speed.csv", overwrite=True)
