"""The models that experiments run on: the paper's, or others instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenred.analysis.reproduction.experiments import BACKBONES, Experiment
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.models import load_model

__all__ = ["Target", "choose_targets", "targets_of"]


@dataclass(frozen=True)
class Target:
    """A model to run.

    Attributes:
        name: for tables.
        backbone: the paper's model whose rows it runs.
        model: the model, as for `tokenred.analysis.Grid`.
        tokens, depth: image tokens and blocks of a model that is not the paper's; otherwise 0.
        owed: why it cannot be run; empty if it can.
    """

    name: str
    backbone: str
    model: Mapping[str, Any]
    tokens: int = 0
    depth: int = 0
    owed: str = ""

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
    """Choose the models to run.

    Args:
        models: names from the paper or timm, or anything that `load_model` accepts; None for all
            models of the paper.
        checkpoints: weight files by the same names.
        weights: whether weights are needed; GMACs do not depend on them.
        chosen: the experiments.

    Raises:
        UnknownNameError: if a checkpoint belongs to a model that is not run.
        ConfigError: if no model belongs to any of the experiments.
        TokenredError: as raised by `tokenred.models.load_model`.
    """
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
    owed = ""
    if weights and backbone.weights and file is None:
        owed = (
            f"timm has no weights of {backbone.spec}; download {backbone.weights} from the "
            f"authors' release and pass --checkpoint {name}={backbone.weights}"
        )
    return Target(name, name, model, owed=owed)
