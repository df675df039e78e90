"""Honest baselines: what the same GMACs buy without any method.

A method is worth its trouble if it beats these at the same cost: the dense model on smaller images,
its first blocks alone, evenly omitted patches, or simply a smaller model.
"""

import copy
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenred.analysis.measure.machine import base_of
from tokenred.analysis.measure.timing import image_shape_of
from tokenred.analysis.result import ALIKE
from tokenred.backbones import adapt
from tokenred.core.errors import (
    BackboneError,
    ConfigError,
    InputError,
    PartError,
    ScheduleError,
    shown,
)
from tokenred.core.values import PartOf, checked, read
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import dense, gmacs, wrap
from tokenred.strategies.specs import Spec, at_budget
from tokenred.strategies.strategy import strategy

KINDS: Final = ("resolution", "depth", "uniform")


@checked
def baselines(
    model: nn.Module,
    gmacs_share: PartOf,
    *,
    kinds: Sequence[Literal["resolution", "depth", "uniform"]] = KINDS,
    smaller: nn.Module | str | None = None,
) -> dict[str, nn.Module]:
    """Cheaper versions of the dense model, each the largest that fits the budget.

    - ``"resolution"``: the model on smaller images, see `lower_resolution`.
    - ``"depth"``: its first blocks, then its norm and head. Off the shelf this is poor, since no
      head was trained for it; it is where fine-tuning a shallow model starts.
    - ``"uniform"``: patches omitted evenly before the first block: the recipe ``uniform``.
    - ``"smaller"``: the model given as ``smaller``.

    All take the model's own images; the first three share its weights and do not change it. Use
    them with `evaluate`, with `benchmark` (and ``dense=model``), or through `compare`.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        gmacs_share: the share of the model's GMACs that each may cost, between 0 and 1.
        kinds: which of the first three.
        smaller: a model for the same images and classes, or a name for
            `tokenred.models.load_model`, which loads its published weights.

    Raises:
        ConfigError: for a share or kind out of range, or a smaller model that does not fit.
        BackboneError: for a model that cannot be built for another size, or that no adapter knows.
        ScheduleError: for a budget that even the smallest baseline exceeds.
    """
    base = base_of(model)
    budget = gmacs_share * gmacs(base)
    made: dict[str, nn.Module] = {kind: _MAKERS[kind](base, budget) for kind in kinds}
    if smaller is not None:
        made["smaller"] = _smaller_model(base, smaller, budget)
    return made


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline in a comparison, such as ``resolution@0.65`` of the kind ``resolution``."""

    label: str
    kind: str
    model: nn.Module

    @property
    def share(self) -> float | None:
        """The share of the dense model's GMACs that it may cost; None for a smaller model."""
        return None if self.kind == "smaller" else float(self.label.rpartition("@")[2])

    @property
    def reduced(self) -> ReducedViT:
        """The model with its cost, block by block."""
        return self.model if isinstance(self.model, ReducedViT) else dense(self.model)

    @property
    def config(self) -> str:
        """What determines it, if no strategy does, as JSON."""
        told: dict[str, object] = {"baseline": self.kind}
        if isinstance(self.reduced.prepare, _Resize):
            told["image_size"] = list(self.reduced.prepare.own)
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
    """The baselines beside strategies, and why some are not available.

    They are at the cost of each strategy, or at the ``wanted`` shares of the dense model's GMACs;
    a ``smaller`` model has its own.

    Raises:
        ConfigError: for shares out of range, a label that a strategy also has, or a smaller model
            that does not fit.
    """
    wanted = read(bool | Sequence[PartOf], wanted, "baselines")
    if isinstance(wanted, bool):
        shares = _shares(base, specs, reduced) if wanted else {}
    else:
        shares = {f"{share:g}": share for share in wanted}
    found: list[Baseline] = []
    notes: list[str] = []
    for kind, (text, share) in product(KINDS, shares.items()):
        label = f"{kind}@{text}"
        if kind == "uniform" and label in reduced:
            continue  # the user has listed the same strategy
        try:
            found.append(Baseline(label, kind, _MAKERS[kind](base, share * gmacs(base))))
        except (BackboneError, ScheduleError) as error:
            notes.append(f"No baseline {label}: {error}")
    whole = gmacs(base)
    costs = {other: other.reduced.cost().gmacs / whole for other in found}
    coarse = [
        f"{other.label} costs {cost:.3g}"
        for other, cost in costs.items()
        if cost * ALIKE < (other.share or 0)
    ]
    if coarse:
        notes.append(
            f"Of the dense model's GMACs, {', '.join(coarse)}: whole blocks or patches had to go."
        )
    if smaller is not None:
        own = _smaller_model(base, smaller, gmacs(base))
        found.append(Baseline(dense(own).info.name, "smaller", own))
    for other in found:
        if other.label in ("dense", *reduced):
            raise ConfigError(
                f"expected a distinct name for each strategy, got {other.label!r}, which is a "
                "baseline's; pass a mapping from other names to strategies."
            )
    return found, tuple(notes)


def _shares(
    base: nn.Module, specs: Sequence[Spec], reduced: Mapping[str, ReducedViT]
) -> dict[str, float]:
    """The costs of the strategies, by the text that names them; the lowest of nearly equal ones."""
    cost, shares = gmacs(base), dict[str, float]()
    for spec in specs:
        share = spec.share or gmacs(reduced[spec.label]) / cost
        text = f"{share:.3g}"
        if share < 1:
            shares[text] = min(share, shares.get(text, share))
    return shares


def _smaller_model(base: nn.Module, given: nn.Module | str, budget: float) -> nn.Module:
    """A model to compare with another: for the same images and classes, and cheaper."""
    if isinstance(given, str):
        from tokenred.models import load_model

        given = load_model(given)
    if not isinstance(given, nn.Module):
        raise PartError(f"expected a smaller model or the name of one, got {shown(given)}.")
    if (cost := gmacs(given)) > budget:
        raise ConfigError(
            f"expected a smaller model of at most {budget:.4g} GMACs, got one of {cost:.4g}."
        )
    theirs = _told(given)
    for what, wanted in _told(base).items():
        got = theirs[what]
        # A model that records no mean and deviation is assumed to accept any.
        if wanted != got and wanted != () and got != ():
            raise ConfigError(
                f"expected a smaller model for {what} {wanted}, as the model has, got {got}; both "
                "receive the same images."
            )
    return given


def _told(model: nn.Module) -> dict[str, object]:
    """What two models must share to receive the same images."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return {
        "images of": image_shape_of(model),
        "classes:": getattr(model, "num_classes", None),
        "pixels of mean": tuple(config.get("mean") or ()),
        "pixels of deviation": tuple(config.get("std") or ()),
    }


def lower_resolution(model: nn.Module, size: tuple[int, int]) -> ReducedViT:
    """The dense model for smaller images: it accepts full-size ones and resizes them itself.

    So it sees what the full model sees, only coarser. The resizing is part of its time but not of
    its cost. Its position embedding is the model's, resampled as in timm; all other weights are
    shared. Its `base_of` is the full model. With another strategy (``with_strategy``) it is a model
    for the smaller images themselves.

    Args:
        model: the dense model.
        size: (height, width) of the smaller images, such as one of `smaller_sizes`.

    Raises:
        BackboneError: for a model that cannot be built for another size.
        InputError: raised by the result, for images of neither size.
    """
    full = _image_size(model)
    small = _twin(model)
    with torch.no_grad():
        small.set_input_size(img_size=size)  # type: ignore[operator]
    low = dense(small)
    wanted = (getattr(model, "pretrained_cfg", None) or {}).get("interpolation")
    low.prepare = _Resize(full, size, wanted if wanted in ("bilinear", "bicubic") else "bicubic")
    # Not a submodule, because it belongs to the caller.
    low.__dict__["stands_for"] = model
    return low


@dataclass(frozen=True)
class _Resize:
    """Resize images from one (height, width) to another."""

    full: tuple[int, int]
    own: tuple[int, int]
    mode: str

    def __call__(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or not images.is_floating_point():
            return images  # the model reports what is wrong with them
        given = (images.shape[2], images.shape[3])
        if self.size(given) == given:
            return images
        # In single precision, because not every device can resize in half precision.
        resized = F.interpolate(
            images.float(), self.own, mode=self.mode, align_corners=False, antialias=True
        )
        return resized.to(images.dtype)

    def size(self, given: tuple[int, int]) -> tuple[int, int]:
        if tuple(given) not in (self.full, self.own):
            full, own, other = (
                f"{height}×{width}" for height, width in (self.full, self.own, given)
            )
            raise InputError(f"images must be {full}, or {own} already, got {other}.")
        return self.own


def smaller_sizes(model: nn.Module) -> list[tuple[int, int]]:
    """The sizes (height, width) below the model's own, in whole patches and of similar shape.

    One for each length of the longer side, ascending.
    """
    _image_size(model)
    grid = adapt(model).info.grid
    assert grid is not None
    rows, columns = model.patch_embed.feat_ratio(as_scalar=False)  # type: ignore[union-attr, operator]
    longer = max(grid)
    return [
        (
            max(1, round(grid[0] * side / longer)) * int(rows),
            max(1, round(grid[1] * side / longer)) * int(columns),
        )
        for side in range(1, longer)
    ]


def _image_size(model: nn.Module) -> tuple[int, int]:
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    able = hasattr(model, "set_input_size") and hasattr(embed, "feat_ratio")
    if size is None or not able or adapt(model).info.grid is None:
        raise BackboneError(
            "expected a model that can be built for another image size, got "
            f"{type(model).__name__}; it needs its own size and timm's set_input_size. Leave out "
            "the resolution."
        )
    return int(size[0]), int(size[1])


def _twin(model: nn.Module) -> nn.Module:
    """Other modules around the same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, dict(shared))


def _largest_resolution(base: nn.Module, budget: float) -> nn.Module:
    sizes = smaller_sizes(base)
    fitting = bisect_right(sizes, budget, key=lambda size: gmacs(lower_resolution(base, size)))
    if not fitting:
        raise ScheduleError(
            f"even images of a single patch cost more than {budget:.4g} GMACs; choose a larger "
            "share."
        )
    return lower_resolution(base, sizes[fitting - 1])


def _shallower(base: nn.Module, budget: float) -> nn.Module:
    cost = dense(base).cost()
    macs = accumulate((layer.macs for layer in cost.layers), initial=cost.stem + cost.head)
    depth = sum(total / 1e9 <= budget for total in macs) - 1
    if depth < 1:
        raise ScheduleError(
            f"even a single block costs more than {budget:.4g} GMACs; choose a larger share."
        )
    shallow = _twin(base)
    shallow.blocks = shallow.blocks[:depth]  # type: ignore[index]
    return shallow


def _uniform(base: nn.Module, budget: float) -> nn.Module:
    return wrap(base, at_budget(strategy("uniform"), budget))


_MAKERS: dict[str, Callable[[nn.Module, float], nn.Module]] = {
    "resolution": _largest_resolution,
    "depth": _shallower,
    "uniform": _uniform,
}
