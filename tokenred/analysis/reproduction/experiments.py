"""The experiments of the GTP paper, read from ``gtp_paper.toml``, and the models they run on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.models import load_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
        rows: published figures that are not in the paper's tables: ``backbone``, ``strategy`` as
            for `tokenred.analysis.parse_spec`, ``top1`` and, if printed, ``gmacs``.
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
    rows: Sequence[Mapping[str, Any]] = ()
    finetuned: Mapping[str, str] = field(default_factory=dict)


_TABLE = tomllib.loads(Path(__file__).with_name("gtp_paper.toml").read_text(encoding="utf-8"))
MATCHED: dict[str, dict[str, list[float]]] = _TABLE["matched"]
"""By backbone: settings of the methods at the same GMACs."""
TOLERANCES: dict[str, dict[str, Any]] = _TABLE["tolerances"]
"""By metric: ``within`` how much a figure is the published one, and ``why``."""
BACKBONES = {name: Backbone(name, **told) for name, told in _TABLE["backbones"].items()}
EXPERIMENTS = {name: Experiment(name, **told) for name, told in _TABLE["experiments"].items()}


def choose_experiments(names: Sequence[str] | None) -> list[Experiment]:
    """Experiments by name, in the paper's order; all for None."""
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


@dataclass(frozen=True)
class Target:
    """A model to run.

    Attributes:
        name: for tables.
        backbone: the paper's model whose rows it runs.
        model: the model, as for `tokenred.analysis.Grid`.
        tokens, depth: image tokens and blocks of a model that is not the paper's; otherwise 0.
        why_not: why it cannot be run; empty if it can.
    """

    name: str
    backbone: str
    model: Mapping[str, Any]
    tokens: int = 0
    depth: int = 0
    why_not: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is a model of the paper, with figures to compare with."""
        return not self.tokens

    def count(self, P: int) -> int:
        """The paper's P, scaled to the same share of this model's tokens over all blocks.

        At least 1, and at most the number of tokens.
        """
        if self.is_own or not P:
            return P
        theirs = BACKBONES[self.backbone]
        share = P * theirs.depth / theirs.tokens
        return max(1, min(round(share * self.tokens / self.depth), (self.tokens - 1) // self.depth))


def choose_targets(
    models: Sequence[str] | None,
    checkpoints: Mapping[str, str | Path],
    *,
    weights: bool,
    chosen: Sequence[Experiment],
) -> list[Target]:
    """The models to run some experiments on, by name, see `reproduce`; GMACs need no weights."""
    known = {backbone.spec: name for name, backbone in BACKBONES.items()}
    known |= {spec.partition(".")[0]: name for spec, name in known.items()}
    known |= {name.casefold(): name for name in BACKBONES}
    files = {known.get(n.casefold(), n): Path(f).expanduser() for n, f in checkpoints.items()}
    targets = {}
    for given in BACKBONES if models is None else models:
        name = known.get(given.casefold(), given)
        targets[name] = _target(name, files.get(name), weights)
    for name in files:
        if name not in targets:
            raise UnknownNameError.of("model of a checkpoint", name, targets)
    found = list(targets.values())
    if not any(targets_of(experiment, found) for experiment in chosen):
        raise ConfigError(
            f"none of the models ({', '.join(targets)}) belongs to the experiments "
            f"{', '.join(e.name for e in chosen)}; choose others."
        )
    return found


def targets_of(experiment: Experiment, targets: Sequence[Target]) -> list[Target]:
    """The models that run an experiment: its own backbones, and all models not in the paper."""
    own = [t for name in experiment.backbones for t in targets if t.is_own and t.name == name]
    others = [replace(t, backbone=experiment.backbones[0]) for t in targets if not t.is_own]
    return own + others


def _target(name: str, file: Path | None, weights: bool) -> Target:
    backbone = BACKBONES.get(name)
    spec = backbone.spec if backbone else name
    model: dict[str, Any] = {"spec": spec}
    if not weights and not spec.endswith(".safetensors"):
        model["pretrained"] = False
    elif file is not None:
        model["checkpoint"] = str(file)
    if backbone is None:
        info = adapt(load_model(**model)).info
        return Target(name, "", model, info.num_patches, info.depth)
    why_not = ""
    if weights and backbone.weights and file is None:
        why_not = (
            f"timm has no weights of {backbone.spec}; download {backbone.weights} from the "
            f"authors' release and pass --checkpoint {name}={backbone.weights}"
        )
    return Target(name, name, model, why_not=why_not)
