"""Which model stands for a backbone of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenred.analysis.reproduction.experiments import BACKBONES, Experiment
from tokenred.analysis.reproduction.points import Scale
from tokenred.core.errors import ConfigError, UnknownNameError

__all__ = ["Stand", "Stands", "choose_stands"]


@dataclass
class Stand:
    """A model that is run.

    Attributes:
        name: for tables.
        backbone: of the paper, whose rows it runs.
        model: what `tokenred.analysis.Grid` takes.
        scale: of counts, for a model that is not the paper's.
        owed: why it cannot be run; empty where it can.
    """

    name: str
    backbone: str
    model: Any
    scale: Scale = field(default_factory=Scale)
    owed: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is the paper's, so that there are figures to compare with."""
        return self.scale.tokens is None

    @property
    def note(self) -> str:
        """What to know when figures are compared."""
        return BACKBONES[self.backbone].note if self.is_own else ""


class Stands:
    """The models that are run.

    Args:
        own: by the name of the paper's backbone.
        others: that stand in for every experiment's first backbone.
        every: whether to run all backbones of an experiment, or only those named.
    """

    def __init__(self, own: Mapping[str, Stand], others: Sequence[Stand]) -> None:
        self._own = dict(own)
        self._others = list(others)

    def of(self, experiment: Experiment) -> list[Stand]:
        """Those that run an experiment."""
        stands = [self._own[name] for name in experiment.backbones if name in self._own]
        first = experiment.backbones[0]
        for other in self._others:
            stands.append(Stand(other.name, first, other.model, other.scale, other.owed))
        return stands


def choose_stands(
    models: Sequence[str] | None,
    checkpoints: Mapping[str, str | Path],
    *,
    weights: bool,
    chosen: Sequence[Experiment],
) -> Stands:
    """The models that are run.

    Args:
        models: by the paper's names, timm's, or anything that `load_model` takes; None for all of
            the paper's.
        checkpoints: files of weights by the same names.
        weights: whether they are needed; GMACs are the same without.
        chosen: the experiments.

    Raises:
        UnknownNameError: for a checkpoint of a model that is not run.
        ConfigError: where none of the models belongs to one of the experiments.
        TokenredError: as `tokenred.models.load_model` raises them, for a model that stands in.
    """
    specs = {b.spec: n for n, b in BACKBONES.items()}
    specs |= {b.spec.partition(".")[0]: n for n, b in BACKBONES.items()}
    specs |= {name.casefold(): name for name in BACKBONES}
    wanted = list(BACKBONES) if models is None else list(models)
    files = {specs.get(n.casefold(), n): Path(f).expanduser() for n, f in checkpoints.items()}
    own, others = {}, []
    for name in wanted:
        known = specs.get(name.casefold())
        if known is not None:
            own[known] = _own_stand(known, files.get(known), weights)
        else:
            others.append(_stand_in(name, files.get(name), weights))
    names = [*own, *(stand.name for stand in others)]
    for name in files:
        if name not in names:
            raise UnknownNameError.of("model of a checkpoint", name, names)
    stands = Stands(own, others)
    if not any(stands.of(experiment) for experiment in chosen):
        raise ConfigError(
            f"none of the models ({', '.join(names)}) belongs to the experiments "
            f"{', '.join(e.name for e in chosen)}; choose others."
        )
    return stands


def _own_stand(name: str, file: Path | None, weights: bool) -> Stand:
    backbone = BACKBONES[name]
    owed = ""
    if weights and backbone.weights and file is None:
        owed = (
            f"timm has no weights of {backbone.spec}; download {backbone.weights} from the "
            f"authors' release and pass --checkpoint {name}={backbone.weights}"
        )
    return Stand(name, name, _model(backbone.spec, file, weights), owed=owed)


def _stand_in(spec: str, file: Path | None, weights: bool) -> Stand:
    from tokenred.backbones import adapt
    from tokenred.models import load_model

    model = _model(spec, file, weights)
    info = adapt(load_model(**model)).info
    return Stand(spec, "", model, Scale(info.num_patches, info.depth))


def _model(spec: str, file: Path | None, weights: bool) -> dict[str, Any]:
    model: dict[str, Any] = {"spec": spec}
    if not weights and not spec.endswith(".safetensors"):
        return model | {"pretrained": False}
    return model if file is None else model | {"checkpoint": str(file)}
