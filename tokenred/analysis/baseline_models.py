"""Honest baselines: what else the same GMACs buy, without any method.

A method is worth its trouble where it beats them at the same cost: the dense model on smaller
images, its first blocks only, patches left out evenly, or simply a smaller model.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from torch import nn

from tokenred.analysis.lower_resolution import LowerResolution, smaller_sizes, twin
from tokenred.analysis.measure.candidates import image_shape_of
from tokenred.analysis.measure.machine import base_of
from tokenred.core.errors import BackboneError, ConfigError, PartError, ScheduleError
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import dense, gmacs, wrap
from tokenred.strategies.specs import Spec, at_budget
from tokenred.strategies.strategy import strategy

__all__ = ["KINDS", "Baseline", "baselines", "baselines_beside"]

KINDS = ("resolution", "depth", "uniform")


def baselines(
    model: nn.Module,
    gmacs_share: float,
    *,
    kinds: Sequence[str] = KINDS,
    smaller: nn.Module | str | None = None,
) -> dict[str, nn.Module]:
    """The dense model's own ways to cost less, each the largest that fits the budget.

    - ``"resolution"``: the model on smaller images, see `LowerResolution`.
    - ``"depth"``: its first blocks, then its norm and head. Off the shelf this is poor, since no
      head was trained for it; it is what the fine-tuning of a shallow model starts from.
    - ``"uniform"``: patches left out evenly, before the first block: the recipe ``uniform``.
    - ``"smaller"``: the model given for it.

    All take the images of the model itself; the first three share its weights and leave it as it
    is. Use them with `evaluate`, with `benchmark` (and ``dense=model``), or through `compare`.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        gmacs_share: of the model's GMACs that each may cost, between 0 and 1.
        kinds: which of the first three.
        smaller: a model for the same images and classes, or a name for
            `tokenred.models.load_model`, which gets its published weights.

    Raises:
        ConfigError: for a share or kind out of range, or a smaller model that does not fit.
        BackboneError: for a model that cannot be had for another size, or that no adapter knows.
        ScheduleError: for a budget that even the smallest baseline exceeds.
    """
    base = base_of(model)
    if isinstance(gmacs_share, bool) or not 0 < gmacs_share < 1:
        raise ConfigError(
            "expected gmacs_share as a share of the dense model's GMACs between 0 and 1, such as "
            f"0.65, got {gmacs_share!r}."
        )
    wrong = [kinds] if isinstance(kinds, str) else [kind for kind in kinds if kind not in _MAKERS]
    if wrong:
        raise ConfigError(f"expected kinds as a list from {', '.join(KINDS)}, got {wrong[0]!r}.")
    budget = gmacs_share * gmacs(base)
    made = {kind: _MAKERS[kind](base, budget) for kind in kinds}
    if smaller is not None:
        made["smaller"] = smaller_model(base, smaller, budget)
    return made


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline in a comparison.

    Attributes:
        label: such as ``resolution@0.65``.
        kind: such as ``resolution``.
        model: ready to run.
    """

    label: str
    kind: str
    model: nn.Module

    @property
    def reduced(self) -> ReducedViT:
        """The model with its cost, block by block."""
        return self.model if isinstance(self.model, ReducedViT) else dense(self.model)

    @property
    def config(self) -> str:
        """What determines it where no strategy does, as JSON."""
        told: dict[str, object] = {"baseline": self.kind}
        if isinstance(self.model, LowerResolution):
            told["image_size"] = list(self.model.own_size)
        else:
            told |= {"model": self.reduced.info.name, "blocks": self.reduced.info.depth}
        return json.dumps(told)


def baselines_beside(
    base: nn.Module,
    specs: Sequence[Spec],
    reduced: Mapping[str, ReducedViT],
    wanted: bool | Sequence[float],
    smaller: nn.Module | str | None = None,
) -> tuple[list[Baseline], tuple[str, ...]]:
    """The baselines of a comparison, and why some cannot be had.

    Args:
        base: the dense model.
        specs: the strategies that are compared.
        reduced: the models under them, by label.
        wanted: at the cost of each strategy, or at these shares of the dense model's GMACs.
        smaller: as in `baselines`; it costs what it costs.

    Raises:
        ConfigError: for shares out of range, a label that a strategy has, or a smaller model that
            does not fit.
    """
    if not isinstance(wanted, bool | list | tuple):
        raise ConfigError(f"expected baselines as True, False or a list of shares, got {wanted!r}.")
    shares = _shares(base, specs, reduced) if wanted is True else {}
    if not isinstance(wanted, bool):
        shares = {f"{share:g}": share for share in wanted}
    found: list[Baseline] = []
    notes: list[str] = []
    for kind, (text, share) in product(KINDS, shares.items()):
        label = f"{kind}@{text}"
        try:
            (made,) = baselines(base, share, kinds=(kind,)).values()
        except (BackboneError, ScheduleError) as error:
            notes.append(f"No baseline {label}: {error}")
        else:
            found.append(Baseline(label, kind, made))
    if smaller is not None:
        own = smaller_model(base, smaller, gmacs(base))
        found.append(Baseline(dense(own).info.name, "smaller", own))
    # The same strategy may be among the user's own.
    found = [other for other in found if other.label not in reduced or other.kind != "uniform"]
    for other in found:
        if other.label in ("dense", *reduced):
            raise ConfigError(
                f"expected each strategy under a name of its own, got {other.label!r}, which is a "
                "baseline's; pass a mapping from other names to strategies."
            )
    return found, tuple(notes)


def _shares(
    base: nn.Module, specs: Sequence[Spec], reduced: Mapping[str, ReducedViT]
) -> dict[str, float]:
    """What the strategies cost, by the text that names it; of nearly the same the least."""
    cost, shares = gmacs(base), dict[str, float]()
    for spec in specs:
        share = spec.share or gmacs(reduced[spec.label]) / cost
        text = f"{share:.3g}"
        if share < 1:
            shares[text] = min(share, shares.get(text, share))
    return shares


def smaller_model(base: nn.Module, given: nn.Module | str, budget: float) -> nn.Module:
    """A model that can stand beside another: for the same images and classes, and cheaper.

    Raises:
        ConfigError: for one that is not.
        PartError: for no model.
    """
    if isinstance(given, str):
        from tokenred.models import load_model

        given = load_model(given)
    if not isinstance(given, nn.Module):
        raise PartError(f"expected a smaller model or the name of one, got {given!r}.")
    if (cost := gmacs(given)) > budget:
        raise ConfigError(
            f"expected a smaller model of at most {budget:.4g} GMACs, got one of {cost:.4g}."
        )
    theirs = {
        "images of": (image_shape_of(base), image_shape_of(given)),
        "classes:": tuple(getattr(m, "num_classes", None) for m in (base, given)),
        "pixels of mean": _statistic(base, given, "mean"),
        "pixels of deviation": _statistic(base, given, "std"),
    }
    for what, (wanted, got) in theirs.items():
        if wanted != got:
            raise ConfigError(
                f"expected a smaller model for {what} {wanted}, as the model has, got {got}; both "
                "are given the same images."
            )
    return given


def _statistic(base: nn.Module, other: nn.Module, name: str) -> tuple[object, object]:
    configs = [getattr(model, "pretrained_cfg", None) or {} for model in (base, other)]
    first, second = (tuple(config.get(name) or ()) for config in configs)
    # A model that records none is taken at its word that any will do.
    return (first, second) if first and second else ((), ())


def _lower_resolution(base: nn.Module, budget: float) -> nn.Module:
    sizes = smaller_sizes(base)
    fitting = bisect_right(sizes, budget, key=lambda size: gmacs(LowerResolution(base, size)))
    if not fitting:
        raise ScheduleError(
            f"even images of a single patch cost more than {budget:.4g} GMACs; choose a larger "
            "share."
        )
    return LowerResolution(base, sizes[fitting - 1])


def _shallower(base: nn.Module, budget: float) -> nn.Module:
    cost = dense(base).cost()
    macs = accumulate((layer.macs for layer in cost.layers), initial=cost.stem + cost.head)
    depth = sum(total / 1e9 <= budget for total in macs) - 1
    if depth < 1:
        raise ScheduleError(
            f"even a single block costs more than {budget:.4g} GMACs; choose a larger share."
        )
    shallow = twin(base)
    shallow.blocks = shallow.blocks[:depth]  # type: ignore[index]
    return shallow


def _uniform(base: nn.Module, budget: float) -> nn.Module:
    return wrap(base, at_budget(strategy("uniform"), budget))


_MAKERS: dict[str, Callable[[nn.Module, float], nn.Module]] = {
    "resolution": _lower_resolution,
    "depth": _shallower,
    "uniform": _uniform,
}
