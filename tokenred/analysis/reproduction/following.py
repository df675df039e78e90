"""The tokens of some strategies, followed through the blocks; kept in a file for the next start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenred._version import __version__
from tokenred.analysis.reproduction.cells import Settings
from tokenred.analysis.reproduction.experiments import Experiment
from tokenred.analysis.reproduction.stands import Stand
from tokenred.core.files import write_atomically
from tokenred.core.fingerprint import digest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SHARE", "follow_tokens"]

SHARE = 0.75


def follow_tokens(
    experiment: Experiment, stand: Stand, settings: Settings, folder: Path
) -> pd.DataFrame:
    """The frame of `tokenred.analysis.oversmoothing`, every strategy at the same cost.

    Args:
        experiment: with strategies to follow.
        stand: the model.
        settings: of the run.
        folder: where the frame is kept.

    Raises:
        TokenredError: as `tokenred.analysis.oversmoothing` and `load_model` raise them.
    """
    from tokenred.analysis.measure.tokens.smoothing import oversmoothing
    from tokenred.analysis.plots.frames import read_frame
    from tokenred.models import load_model

    path = folder / f"{experiment.name}-{_mark(experiment, stand, settings)}.csv"
    if path.exists():
        return read_frame(path)
    options = settings.options
    found = oversmoothing(
        load_model(**stand.model),
        settings.data,
        experiment.follow,
        gmacs_share=SHARE,
        limit=settings.limit,
        batch_size=options["batch_size"],
        workers=options["loaders"],
        device=options["device"],
        seed=options["seed"],
        split=options["split"],
        name=stand.name,
        progress=settings.progress,
    )
    write_atomically(path, found.frame.to_csv(index=False))
    return found.frame


def _mark(experiment: Experiment, stand: Stand, settings: Settings) -> str:
    """Another one for other strategies, weights, images or code."""
    from tokenred.analysis.study.facts import Facts
    from tokenred.analysis.study.refs import read_data, read_model
    from tokenred.strategies.specs import parse_spec

    prints = [parse_spec(text).strategy.fingerprint() for text in experiment.follow]
    facts, model = Facts(), read_model(stand.model)
    told: list[Any] = [
        *prints, SHARE, __version__, settings.limit, settings.options["seed"],
        facts.model(model).identity,
        facts.data(read_data(settings.data, settings.options["split"], None), model).identity,
    ]  # fmt: skip
    return digest("\n".join(map(str, told)))[:12]
