"""`reproduce`: run the experiments of the GTP paper."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tokenred._version import __version__
from tokenred.analysis.measure.oversmoothing import oversmoothing
from tokenred.analysis.plots.frames import read_frame
from tokenred.analysis.reproduction.experiments import (
    Claim,
    Experiment,
    Target,
    choose_experiments,
    choose_targets,
    claims_of,
    targets_of,
)
from tokenred.analysis.reproduction.judge import Part, Record, part_of_cells, part_of_tokens
from tokenred.analysis.reproduction.outcome import Reproduction
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.refs import read_data, read_model
from tokenred.core.errors import CheckpointError, ConfigError
from tokenred.core.files import prepare_folder
from tokenred.core.fingerprint import digest
from tokenred.core.lock import output_lock
from tokenred.core.values import Count, Dtype, Size
from tokenred.data import open_dataset
from tokenred.data.classes import ClassMap
from tokenred.strategies.specs import parse_spec

STORE, CSV, HTML = "results.db", "reproduction.csv", "reproduction.html"
_QUICK, _DEMO = 1000, 100  # images
_SHARE = 0.75  # of the dense model's GMACs, at which the tokens of strategies are followed


@dataclass(frozen=True)
class _Run:
    """What all experiments have in common; ``options`` are further arguments of the grid."""

    folder: Path
    data: Any
    limit: int | None
    images: int | None
    metrics: tuple[str, ...]
    options: Mapping[str, Any]
    retry_failed: bool
    progress: bool


def reproduce(
    imagenet: str | Path | None = None,
    output: str | Path = "tokenred-out/reproduction",
    *,
    experiments: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    checkpoints: Mapping[str, str | Path] | None = None,
    demo: bool = False,
    costs: bool = False,
    quick: bool = False,
    limit: Size | None = None,
    speed: bool = False,
    split: str | None = None,
    class_map: ClassMap = None,
    batch_size: Size = 64,
    workers: Count = 0,
    device: str | None = None,
    dtype: Dtype | None = None,
    seed: Count = 0,
    retry_failed: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    tell: Callable[[str], object] = lambda line: None,
) -> Reproduction:
    """Run the GTP paper's experiments and compare each figure with the published one.

    If a run is killed, the same call continues where it stopped. Models without available weights,
    and rows that need training, are reported as not run; the others run.

    Args:
        imagenet: the images: anything `tokenred.data.open_dataset` accepts, such as the folder of
            the validation split.
        output: folder for the store of all results, a CSV and an HTML report.
        experiments: names, such as ``"table4"``; None for all.
        models: names from the paper or timm; None for those of each experiment. Any other model
            that `tokenred.models.load_model` accepts replaces the paper's, at P scaled to its
            tokens and blocks, and without published figures.
        checkpoints: weight files by model name.
        demo: use the bundled model and 100 of its images instead.
        costs: GMACs only; needs neither images nor weights.
        quick: use 1000 fixed images, balanced over the classes.
        limit: use this many images instead.
        speed: measure speed as well.
        split, class_map: as in `tokenred.data.open_dataset`.
        batch_size, workers, device, dtype, seed: as in `tokenred.analysis.Grid`; ``workers`` is the
            number of image-loading processes.
        retry_failed: run failed cells again.
        overwrite: replace the results of an earlier run instead of continuing it.
        progress: show progress on standard error.
        tell: called with a line about the current step.

    Raises:
        ConfigError: if arguments contradict each other.
        UnknownNameError: for an unknown experiment or model.
        DataError: if the images cannot be found, or the folder cannot be written.
        OutputBusyError: if another process is using the folder.
    """
    if sum((imagenet is not None, demo, costs)) != 1:
        raise ConfigError(
            "expected one of imagenet=PATH (its images), demo=True (the bundled model and images) "
            "and costs=True (GMACs only, without images)."
        )
    if demo and models:
        raise ConfigError("demo chooses the model itself; omit models.")
    if quick and limit is not None:
        raise ConfigError("quick sets its own limit; omit quick or limit.")
    if costs and (quick or limit is not None or speed):
        raise ConfigError("costs uses no images and no timing; omit quick, limit and speed.")
    chosen = choose_experiments(experiments)
    models = ["digits"] if demo else models
    targets = choose_targets(models, checkpoints or {}, weights=not costs, chosen=chosen)
    data = "digits" if demo else imagenet
    if limit is None:
        limit = _QUICK if quick else _DEMO if demo else None
    images = None
    if data is not None:
        # What cannot be opened is refused before a model is loaded.
        available = len(open_dataset(data, split=split, class_map=class_map))
        images = available if limit is None else min(limit, available)
    folder = Path(output).expanduser()
    # Its own earlier files may be replaced, others not.
    own = (not costs and (folder / STORE).exists()) or (
        (folder / CSV).exists() and (folder / HTML).exists()
    )
    prepare_folder(folder, (CSV, HTML), overwrite=own or overwrite)
    run = _Run(
        folder, data, limit, images,
        metrics=() if costs else ("accuracy", "speed") if speed else ("accuracy",),
        options={"split": split, "class_map": class_map, "batch_size": batch_size,
                 "loaders": workers, "device": device, "dtype": dtype, "seed": seed},
        retry_failed=retry_failed, progress=progress,
    )  # fmt: skip
    parts = []
    why_not = {target.name: target.why_not for target in targets}
    for name, why in why_not.items():
        if why:
            tell(f"not run: {name}: {why}")
    with output_lock(folder):
        if overwrite:
            (folder / STORE).unlink(missing_ok=True)
        for experiment in chosen:
            for target in targets_of(experiment, targets):
                tell(f"{experiment.name}: {experiment.title}: {target.name}")
                try:
                    parts.append(_part(experiment, target, run, why_not[target.name]))
                except CheckpointError as error:
                    # Other models may still be available.
                    why_not[target.name] = str(error)
                    tell(f"not run: {target.name}: {error}")
                    parts.append(_part(experiment, target, run, str(error)))
        done = Reproduction(tuple(parts), None if costs else folder / STORE, images, costs)
        done.to_csv(folder / CSV, overwrite=True)
        done.to_html(folder / HTML, overwrite=True)
    return done


def _part(experiment: Experiment, target: Target, run: _Run, why_not: str) -> Part:
    if experiment.follow:
        why_not = why_not or ("" if run.metrics else "GMACs only: no images were used")
        frame = None if why_not else _follow_tokens(experiment, target, run)
        return part_of_tokens(experiment, target, frame, why_not)
    claims = claims_of(experiment, target)
    records = [] if why_not else _run_cells(experiment, target, claims, run)
    return part_of_cells(experiment, target, claims, records, run.images, why_not)


def _run_cells(
    experiment: Experiment, target: Target, claims: Sequence[Claim], run: _Run
) -> list[list[Record]]:
    """Run what is not in the store yet, and return the rows of each claim's cells, in order."""
    cells = [cell for claim in claims for cell in claim.cells]
    if not cells:
        return [[] for _ in claims]
    grid = Grid(
        cells=cells,
        model=dict(target.model),
        data=run.data,
        limit=run.limit,
        metrics=run.metrics,
        against="dense" if run.metrics else None,
        # A cell that this model cannot run becomes a row with the reason.
        invalid="skip",
        name=experiment.name,
        **run.options,
    )
    if run.metrics:
        rows = grid.run(
            run.folder / STORE, retry_failed=run.retry_failed, progress=run.progress
        ).records
    else:
        # Costs follow from the plan.
        rows = [{**row, "error": row["why"]} for row in grid.dry_run().to_dict("records")]
    each = iter(rows)
    return [[next(each) for _ in claim.cells] for claim in claims]


def _follow_tokens(experiment: Experiment, target: Target, run: _Run) -> pd.DataFrame:
    """The frame of `tokenred.analysis.oversmoothing`, every strategy at the same cost.

    It is kept in a file for the next run, named by what determines it.
    """
    seed, split, class_map = (run.options[name] for name in ("seed", "split", "class_map"))
    facts, model = Facts(), read_model(dict(target.model))
    told: list[Any] = [
        *(parse_spec(text).strategy.fingerprint() for text in experiment.follow),
        _SHARE, __version__, run.limit, seed, facts.model(model).identity,
        facts.data(read_data(run.data, split, class_map), model),
    ]  # fmt: skip
    mark = digest("\n".join(map(str, told)))[:12]
    path = run.folder / f"{experiment.name}-{mark}.csv"
    if path.exists():
        return read_frame(path)
    from tokenred.models import load_model  # imports timm

    found = oversmoothing(
        load_model(**target.model), run.data, experiment.follow, gmacs_share=_SHARE,
        limit=run.limit, batch_size=run.options["batch_size"], workers=run.options["loaders"],
        device=run.options["device"], seed=seed, split=split, class_map=class_map,
        name=target.name, progress=run.progress,
    )  # fmt: skip
    found.to_csv(path)
    return found.frame
