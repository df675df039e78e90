"""`reproduce`: run the experiments of the GTP paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenred.analysis.reproduction.cells import Settings, run_points
from tokenred.analysis.reproduction.experiments import Experiment, choose_experiments
from tokenred.analysis.reproduction.following import follow_tokens
from tokenred.analysis.reproduction.points import points_of
from tokenred.analysis.reproduction.results import Part, Reproduction
from tokenred.analysis.reproduction.stands import Stand, choose_stands
from tokenred.core.errors import CheckpointError, ConfigError
from tokenred.core.files import prepare_folder, write_atomically

__all__ = ["QUICK", "reproduce"]

QUICK, DEMO = 1000, 100
STORE, CSV, HTML = "results.db", "reproduction.csv", "reproduction.html"
_DIGITS = "digits"


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
    limit: int | None = None,
    speed: bool = False,
    split: str | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
    dtype: Any = None,
    seed: int = 0,
    retry_failed: bool = False,
    progress: bool = True,
    tell: Callable[[str], object] = lambda line: None,
) -> Reproduction:
    """Run the GTP paper's experiments and set each figure beside the published one.

    Killed at any moment, the same call goes on where it was. Models whose weights cannot be had,
    and rows that need a training, are owed; the others go on.

    Args:
        imagenet: the images: what `tokenred.data.open_dataset` takes, such as the folder of the
            validation split.
        output: folder for the store of all results, a CSV and an HTML report.
        experiments: names, such as ``"table4"``; None for all.
        models: by the paper's names or timm's; None for those of each experiment. Any other model
            that `tokenred.models.load_model` takes stands in for the paper's, at P scaled to its
            tokens and blocks, and without published figures.
        checkpoints: files of weights by the name of the model.
        demo: the embedded model and 100 of its images in place of all others.
        costs: GMACs only; needs neither images nor weights.
        quick: 1000 fixed images, in the same share of each class.
        limit: so many in place of these.
        speed: measure speed as well.
        split: of the data.
        batch_size, workers, device, dtype, seed: as in `tokenred.analysis.Grid`, ``workers``
            being the processes that load images.
        retry_failed: run cells again that failed before.
        progress: show bars on a terminal.
        tell: called with a line on what is being done.

    Raises:
        ConfigError: for arguments that contradict each other.
        UnknownNameError: for an unknown experiment or model.
        DataError: for images that cannot be found, or a folder that cannot be written to.
    """
    _check(imagenet, demo, costs, quick, limit, speed, models)
    chosen = choose_experiments(None if experiments is None else list(experiments))
    source = _DIGITS if demo else imagenet
    stands = choose_stands(
        [_DIGITS] if demo else models, checkpoints or {}, weights=not costs, chosen=chosen
    )
    images = None if costs else _count_images(source, split)
    folder = _prepare(Path(output))
    settings = Settings(
        store=None if costs else folder / STORE,
        data=None if costs else source,
        limit=limit or (QUICK if quick else DEMO if demo else None),
        images=images,
        metrics=() if costs else ("accuracy", "speed") if speed else ("accuracy",),
        options={"split": split, "batch_size": batch_size, "loaders": workers, "device": device,
                 "dtype": dtype, "seed": seed},
        retry_failed=retry_failed,
        progress=progress,
    )  # fmt: skip
    parts = []
    for experiment in chosen:
        for stand in stands.of(experiment):
            tell(f"{experiment.name}: {experiment.title}: {stand.name}")
            parts.append(_run(experiment, stand, settings, folder, tell))
    done = Reproduction(tuple(parts), settings.store, settings.limit, images, costs)
    write_atomically(folder / CSV, done.frame.to_csv(index=False))
    done.to_html(folder / HTML, overwrite=True)
    return done


def _run(experiment: Experiment, stand: Stand, settings: Settings, folder: Path, tell: Any) -> Part:
    points = points_of(experiment, stand.backbone, stand.scale)
    if stand.owed:
        return Part(experiment, stand, tuple(points), why=stand.owed)
    try:
        if experiment.follow:
            if settings.store is None:
                return Part(experiment, stand, (), why="GMACs only: no images were looked at")
            return Part(
                experiment, stand, (), follow=follow_tokens(experiment, stand, settings, folder)
            )
        records = run_points(experiment, stand, points, settings)
    except CheckpointError as error:
        # The other models may still be there.
        stand.owed = str(error)
        tell(f"owed: {stand.name}: {error}")
        return Part(experiment, stand, tuple(points), why=stand.owed)
    return Part(experiment, stand, tuple(points), records=records)


def _check(
    imagenet: Any,
    demo: bool,
    costs: bool,
    quick: bool,
    limit: int | None,
    speed: bool,
    models: Sequence[str] | None,
) -> None:
    if sum((imagenet is not None, demo, costs)) != 1:
        raise ConfigError(
            "expected one of: the images of ImageNet (imagenet=PATH; --imagenet PATH), demo (the "
            "embedded model and images) or costs (GMACs only, without images)."
        )
    if demo and models:
        raise ConfigError("demo chooses the model itself; leave models out.")
    if quick and limit is not None:
        raise ConfigError("quick means a limit of its own; leave it or limit out.")
    if costs and (quick or limit is not None or speed):
        raise ConfigError("costs needs no images and no time; leave quick, limit and speed out.")


def _count_images(source: Any, split: str | None) -> int:
    """How many images there are; refuses what cannot be opened, before a model is loaded."""
    from tokenred.data import open_dataset

    return len(open_dataset(source, split=split))


def _prepare(folder: Path) -> Path:
    """The folder; its own earlier files may be replaced, others not."""
    folder = folder.expanduser()
    own = (folder / CSV).exists() and (folder / HTML).exists()
    prepare_folder(folder, (CSV, HTML), overwrite=own or (folder / STORE).exists())
    return folder
