"""``tokenred compare`` and ``bench``: measure, write, print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tokenred.cli.absent import refuse_store, refuse_unreachable
from tokenred.cli.console import check_resume, claim_folder, say
from tokenred.cli.options import (
    FILE,
    OUTPUT,
    ClassMap,
    Data,
    ModelOptions,
    Overwrite,
    Strategies,
    model_and_data,
    options_of,
    read_class_map,
    read_size,
    valid,
)
from tokenred.core.errors import ConfigError
from tokenred.core.files import check_new, write_atomically
from tokenred.core.values import PartOf, Size
from tokenred.data.places import HUB

_OUT = Path("tokenred-out")
_STORE, _CSV, _CHART = "results.db", "results.csv", "break_even.png"
# What bench measures by default; each cell is short, to stay within a minute.
_MODELS, _BATCHES = ("digits",), (1, 4, 16, 64)
_STRATEGIES = ("gtp@0.65", "tome@0.65", "evit@0.65", "topk@0.65")
_QUICK_SECONDS = 1.0
_OF_SWEEP = ("batch_size", "speedup")  # columns of a chart
# The second half of the demo: published settings on a model that people use.
_DEIT = "deit_small_patch16_224"
_PUBLISHED = ("gtp:P=8", "tome:r=8", "evit:keep_rate=0.7", "topk:keep_rate=0.7",
              "random:keep_rate=0.7")  # fmt: skip
_EASY = (
    "The bundled digits are too easy to rank methods: most lose next to nothing. To rank them, "
    "use --model cifar10_vit --data cifar10:PATH."
)
_DEMO_SECONDS = 30  # at most, per method: a busy machine gets fewer pairs, to keep the demo short


@options_of("tokenred.analysis:compare", leave_out="strategies name")
def compare_command(
    *,
    model: ModelOptions = ModelOptions(),
    data: Data = None,
    class_map: ClassMap = None,
    strategy: Strategies = (),
    budget: Annotated[
        tuple[float, ...], Parameter(name=["--budget", "-b"]), valid(Sequence[PartOf], "--budget")
    ] = (),
    against: str | None = None,
    output: Annotated[Path | None, OUTPUT] = None,
    resume: bool = False,
    overwrite: Overwrite = False,
    demo: bool = False,
    **options: Any,
) -> None:
    """Compare strategies: cost, speed and accuracy.

    All on one model: speed against the dense model, accuracy on the same images. Without options:
    the bundled digits model and images; gtp, tome, evit, topk and random at 0.85 and 0.65 of the
    dense model's GMACs.

    Args:
        budget: run every strategy at this share of the dense model's GMACs; repeatable.
        against: compare accuracies with this strategy, at each row's budget; by default dense.
        output: folder for comparison.csv and tradeoff.png; by default tokenred-out.
        resume: continue a stopped run, or start if there is none.
        demo: the comparison on the bundled model and data, then the speed of DeiT-S.
    """
    if demo and (model != ModelOptions() or strategy or budget or data or against):
        raise ConfigError("--demo chooses the model, data and strategies; leave those options out.")
    check_resume(resume, overwrite)
    source, options["class_map"] = None, read_class_map(class_map)
    if not model.random_weights:
        model, source = model_and_data(model, data, options.get("split"), options["class_map"])
    elif data:
        raise ConfigError(
            "accuracy means nothing with random weights; leave out --data or --random-weights."
        )
    if source is None and not options.get("timing", True):
        raise ConfigError("nothing to measure: there is no data, and --no-timing was given.")
    if demo:
        # On a busy machine, threads mostly wait for each other, and that is all we would measure.
        options = {"max_seconds": _DEMO_SECONDS, "threads": 1} | options
    names = ("comparison.csv", "tradeoff.png") if source else ("comparison.csv",)
    folder = output or (_OUT / "demo" if demo else _OUT)
    # The demo may replace its own earlier output but nothing else.
    replace = overwrite or (demo and output is None)
    # Nor does what a stopped run was to replace stop it again.
    replace = replace or (resume and (folder / "comparison.db").exists())
    csv, *picture = claim_folder(folder, *names, overwrite=replace)
    (kept,) = claim_folder(folder, "comparison.db", overwrite=overwrite or demo, resume=resume)
    if options.get("store") is None or not Path(options["store"]).exists():
        model.refuse_unreachable()
    from tokenred.analysis import compare, same_budget
    from tokenred.analysis.lineup import named_specs
    from tokenred.strategies.specs import METHODS

    specs = named_specs(strategy) if strategy else None
    if budget:
        same_budget(budget, specs or METHODS)  # refuses before the model is loaded
    temporary = "store" not in options
    if temporary and not resume:
        kept.unlink(missing_ok=True)
    options.setdefault("store", kept)
    options |= {"budget": budget, "against": against or "dense", "name": model.title}
    result = compare(model.load(), source, specs, **options)
    written = [result.to_csv(csv, overwrite=True)]
    written += [write_atomically(path, _drawn(result)) for path in picture]
    if temporary:
        kept.unlink()
    if source == "digits":
        say(_EASY, "")
    say(result)
    if demo:
        asked = {n: options[n] for n in ("threads", "device", "seed", "progress") if n in options}
        timed = _time_deit(**asked)
        written.append(timed.to_csv(folder / "deit_small_speed.csv", overwrite=True))
        say("", timed)
    say(written=written)


def _time_deit(**options: Any) -> Any:
    """The published settings on DeiT-S with random weights; speed does not depend on them."""
    import torch

    from tokenred.analysis import compare
    from tokenred.models import load_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        deit = load_model(_DEIT, pretrained=False)
    return compare(
        deit, None, _PUBLISHED, batch_size=8, pairs=5, warmup=1, max_seconds=_DEMO_SECONDS,
        name=f"{_DEIT} with random weights (no download): speed only, accuracy not shown",
        **options,
    )  # fmt: skip


@options_of("tokenred.analysis:sweep",
            leave_out="models strategies path batch_sizes image_sizes retry",
            dtypes="--dtype", engines="--engine", devices="--device")  # fmt: skip
def bench_command(
    *,
    model: tuple[str, ...] = _MODELS,
    strategy: Strategies = _STRATEGIES,
    batch_size: Annotated[
        tuple[int, ...],
        Parameter(name=["--batch-size", "-n"]),
        valid(Sequence[Size], "--batch-size"),
    ] = _BATCHES,
    image_size: tuple[str, ...] = (),
    output: Annotated[Path | None, OUTPUT] = None,
    resume: bool = False,
    overwrite: Overwrite = False,
    dry_run: bool = False,
    chart: Annotated[Path | None, FILE] = None,
    **options: Any,
) -> int:
    """Measure speed against the dense model in many settings.

    Every strategy in every combination of settings. Without options: the bundled digits model and
    four methods at one budget, at several batch sizes.

    Args:
        model: 'digits' or 'cifar10_vit' (bundled), a timm name (random weights), or a .safetensors
            file; repeat it.
        batch_size: images in a batch, as in 1,16; repeatable.
        image_size: a side or HEIGHTxWIDTH, as in 224,384; repeatable; by default the model's own.
        output: folder for results.db, results.csv and break_even.png; by default
            tokenred-out/bench.
        resume: continue an earlier run; nothing is measured twice.
        dry_run: list what would be measured, and exit.
        chart: only print the table and draw the chart of an earlier run's .db or .csv.
    """
    if chart is not None:
        if output is None:
            place = check_new(chart.with_suffix(".png"), overwrite=overwrite)
        else:
            (place,) = claim_folder(output, _CHART, overwrite=overwrite)
        from tokenred.analysis.plots.frames import need, read_frame  # without PyTorch

        need(read_frame(chart), _OF_SWEEP, "a break-even chart")
        from tokenred.analysis import Sweep

        found = Sweep.read(chart)
        say(found, written=[write_atomically(place, _drawn(found))])
        return 0
    folder = output or _OUT / "bench"
    results, sizes = (
        folder / _STORE,
        [read_size(text) for each in image_size for text in each.split(",")],
    )
    check_resume(resume, overwrite)
    if not dry_run:
        claim_folder(folder, _STORE, _CSV, _CHART, overwrite=overwrite, resume=resume)
        refuse_store(results)
    for name in model:
        if name.startswith(HUB) and not results.exists():
            refuse_unreachable(name)
    from tokenred.analysis import Sweep, sweep
    from tokenred.analysis.lineup import named_specs

    named_specs(strategy)
    if (model, strategy, batch_size, image_size) == (_MODELS, _STRATEGIES, _BATCHES, ()):
        options.setdefault("max_seconds", _QUICK_SECONDS)
    found = sweep(
        model,
        strategy,
        None if dry_run and not results.exists() else results,
        batch_sizes=batch_size,
        image_sizes=sizes or (None,),
        overwrite=overwrite,
        dry_run=dry_run,
        **options,
    )
    if dry_run:
        say(found)
        return 0
    everything = Sweep.read(results)
    written = [results, everything.to_csv(folder / _CSV, overwrite=True)]
    if everything.done:
        written.append(write_atomically(folder / _CHART, _drawn(everything)))
    say(found, written=written)
    return 1 if found.failures else 0


def _drawn(result: Any) -> bytes:
    from tokenred.analysis.plots.canvas import figure_bytes  # imports matplotlib

    content: bytes = figure_bytes(result.plot())
    return content
