"""The models and experiments of the GTP paper, as ``gtp_paper.toml`` lists them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenred.core.errors import ConfigError, UnknownNameError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "BACKBONES", "EXPERIMENTS", "MATCHED", "TOLERANCES", "Backbone", "Experiment",
    "choose_experiments", "finetuning",
]  # fmt: skip


@dataclass(frozen=True)
class Backbone:
    """A model of the paper.

    Attributes:
        name: its name in the paper.
        spec: for `tokenred.models.load_model`.
        tokens, depth: image tokens and blocks.
        weights: where to get them, if not from timm.
        note: caveats for comparing figures.
    """

    name: str
    spec: str
    tokens: int = 196
    depth: int = 12
    weights: str = ""
    note: str = ""


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
        name: on the command line.
        title: what it shows.
        tables: tables of published figures, whose rows are the cells.
        backbones: by the paper's names.
        axes: axes of the cells, if no figures are published.
        follow: strategies whose tokens are followed through the blocks, instead of measuring
            accuracy.
        chart: ``"tradeoff"``, ``"scorers"``, ``"graphs"``, ``"theta"``, ``"heat_map"`` or
            ``"smoothing"``.
        judged: whether its rows are compared with the published ones; not if another experiment
            does that already.
        program: follow the authors' code where it differs from the paper.
        note: caveats for comparing figures.
        finetuned: what cannot be run off the shelf: ``what`` it is, and the ``strategy`` its
            weights are trained with.
    """

    name: str
    title: str
    tables: Sequence[str] = ()
    backbones: Sequence[str] = ("DeiT-S",)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    follow: Sequence[str] = ()
    chart: str = "tradeoff"
    judged: bool = True
    program: bool = False
    note: str = ""
    finetuned: Mapping[str, str] = field(default_factory=dict)


_TABLE = tomllib.loads(Path(__file__).with_name("gtp_paper.toml").read_text(encoding="utf-8"))
MATCHED: dict[str, dict[str, list[float]]] = _TABLE["matched"]
"""By backbone: settings of the methods at the same GMACs."""
TOLERANCES: dict[str, dict[str, Any]] = _TABLE["tolerances"]
"""By metric: ``within`` how much a figure is the published one, and ``why``."""
BACKBONES = {name: Backbone(name, **told) for name, told in _TABLE["backbones"].items()}
EXPERIMENTS = {name: Experiment(name, **told) for name, told in _TABLE["experiments"].items()}


def choose_experiments(names: Sequence[str] | None) -> list[Experiment]:
    """Experiments by name, in the paper's order; all for None.

    Raises:
        UnknownNameError: for an unknown name.
        ConfigError: for an empty list.
    """
    if names is None:
        return list(EXPERIMENTS.values())
    if not names:
        raise ConfigError("expected the name of an experiment, got an empty list; omit the list.")
    folded = {str(name).casefold().replace(" ", "") for name in names}
    for name in sorted(folded - set(EXPERIMENTS)):
        raise UnknownNameError.of("experiment", name, EXPERIMENTS)
    return [experiment for name, experiment in EXPERIMENTS.items() if name in folded]


def finetuning(spec: str, strategy: str) -> str:
    """The command that fine-tunes weights with a strategy."""
    return (
        f"tokenred finetune --model {spec} --strategy {strategy} --data IMAGENET --preset paper "
        "--output FOLDER"
    )
