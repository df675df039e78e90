"""The promises of a selector that keeps as many tokens as the image needs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokenred.core.state import Selection
from tokenred.strategies.base import Selector
from tokenred.testing import draw
from tokenred.testing.compare import require, require_same, untouched
from tokenred.testing.runner import Suite, built
from tokenred.testing.sample import DEPTH, Sample, alone

__all__ = ["adaptive_layers", "hold_adaptive"]


def adaptive_layers(part: Selector) -> tuple[int, ...]:
    """Blocks of a model of `DEPTH` blocks in which the images decide how many tokens go."""
    return tuple(layer for layer in range(DEPTH) if part.adaptive(layer, DEPTH))


def hold_adaptive(suite: Suite, part: Selector) -> None:
    """Hold a selector with ``adaptive`` blocks to what `Selector.adaptive` asks of it.

    Every living token stays or goes, each once, and padding does neither; ``keep`` is as wide as
    the image that keeps most, and every image keeps a token; inputs are left alone; the same answer
    twice, and for an image alone as in a batch; relabelled with the tokens where `equivariant`.

    Raises:
        AssertionError: with the promise that does not hold, and the smallest example found.
    """
    traits = part.traits
    anything = draw.samples(needs_cls=traits.needs_cls)
    tied = draw.samples(needs_cls=traits.needs_cls, flavours=("axes",))
    smooth = draw.smooth_samples(needs_cls=traits.needs_cls)
    suite.holds("living tokens stay or go, each once, and no padding", anything | tied, _places)
    suite.holds("inputs are not modified", anything, _inputs_stay)
    if traits.deterministic:
        suite.holds("deterministic: the same input, the same choice", anything | tied, _twice)
        suite.holds("an image is treated alone as in a batch", smooth | tied, _alone)
    if traits.equivariant:
        suite.holds("equivariant: permuting the tokens permutes the choice", smooth, _relabelled)
    if not traits.needs_grid:
        suite.holds("the grid is not read unless needs_grid is declared", smooth, _any_grid)


def _chosen(part: Selector, sample: Sample) -> Selection:
    sample = _at_its_block(part, sample)
    made, attention = built(part, sample)
    with torch.no_grad():
        chosen = made(sample.state, attention, 0)
    if not isinstance(chosen, Selection) or chosen.alive is None or chosen.gone is None:
        raise AssertionError(f"expected a Selection with alive and gone, got {chosen!r}")
    return chosen


def _at_its_block(part: Selector, sample: Sample) -> Sample:
    layers = adaptive_layers(part)
    layer = sample.state.layer if sample.state.layer in layers else layers[0]
    return replace(sample, state=replace(sample.state, layer=layer))


def _living(sample: Sample) -> Tensor:
    size = sample.state.image_size
    return torch.ones_like(sample.state.index, dtype=torch.bool) if size is None else size > 0


def _times(places: Tensor, counted: Tensor, n: int) -> Tensor:
    """How often each of ``n`` places is named, ``(b, n)``."""
    none = torch.zeros(places.shape[0], n, dtype=torch.long)
    return none.scatter_add(1, places, counted.long())


def _places(part: Selector, sample: Sample) -> None:
    chosen, living, n = _chosen(part, sample), _living(sample), sample.state.num_tokens
    assert chosen.alive is not None
    assert chosen.gone is not None
    for name, places, counted in (
        ("keep", chosen.keep, chosen.alive),
        ("drop", chosen.drop, chosen.gone),
    ):
        require(
            places.shape == counted.shape and counted.dtype == torch.bool,
            f"expected a bool for each place of {name}, {tuple(places.shape)}, got "
            f"{tuple(counted.shape)} of {counted.dtype}",
        )
    stays, goes = _times(chosen.keep, chosen.alive, n), _times(chosen.drop, chosen.gone, n)
    require(
        bool((stays + goes == living.long()).all()),
        f"of the tokens {living.tolist()} stay {stays.tolist()} and go {goes.tolist()}",
    )
    kept = stays.sum(dim=1)
    require(bool((kept >= living.any(dim=1)).all()), f"images keep {kept.tolist()} tokens")
    require(
        chosen.keep.shape[1] == int(kept.max()),
        f"keep has {chosen.keep.shape[1]} places for at most {int(kept.max())} tokens",
    )


def _inputs_stay(part: Selector, sample: Sample) -> None:
    sample = _at_its_block(part, sample)
    made, attention = built(part, sample)
    with untouched(state=sample.state, attention=attention), torch.no_grad():
        made(sample.state, attention, 0)


def _twice(part: Selector, sample: Sample) -> None:
    require_same(_chosen(part, sample), _chosen(part, sample), "asked twice")


def _alone(part: Selector, sample: Sample) -> None:
    sample = _at_its_block(part, sample)
    made, attention = built(part, sample)
    together = _stays(_chosen(part, sample), sample)
    for i in range(together.shape[0]):
        with torch.no_grad():
            single = made(*alone(sample.state, attention, i), 0)
        require_same(
            _stays(single, sample), together[i : i + 1], f"image {i} alone and in the batch"
        )


def _relabelled(part: Selector, sample: Sample) -> None:
    order = sample.some_order()
    here, there = _chosen(part, sample), _chosen(part, sample.permuted(order))
    moved = _stays(here, sample).gather(1, order)
    require_same(_stays(there, sample), moved, "permuted and not")


def _any_grid(part: Selector, sample: Sample) -> None:
    line = replace(sample.state, grid=(1, sample.state.num_patches))
    one, other = _chosen(part, sample), _chosen(part, replace(sample, state=line))
    require_same(one, other, "on its grid, and with the grid called a single row")


def _stays(chosen: Selection, sample: Sample) -> Tensor:
    assert chosen.alive is not None
    return _times(chosen.keep, chosen.alive, sample.state.num_tokens)
