"""The promises of a selector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Scorer, Selector, scorers, selectors
from tokenred.strategies.selectors import TopScore
from tokenred.testing import draw
from tokenred.testing.adaptive import adaptive_layers, hold_adaptive
from tokenred.testing.compare import require, require_close, require_same, untouched
from tokenred.testing.runner import Suite, built
from tokenred.testing.sample import Sample, alone, model_info

__all__ = ["check_selector"]


def check_selector(
    selector: Selector | Scorer | str, *, max_examples: int = 25, derandomize: bool = True
) -> None:
    """Hold a selector to its contract and to the traits that it declares.

    For every P from 0 to its `limit`: kept and dropped places make up all of them, P are dropped,
    partners are kept ones; where the selection names its scores, the highest stay and the lower
    place wins a tie; inputs are left alone; the same answer twice, and for an image alone as in a
    batch, ties included; relabelled with the tokens where `equivariant`. Of a selector whose
    counts depend on the image (`Selector.adaptive`), what that asks for instead.

    Args:
        selector: an instance, a registered name, or a scorer, which stands for `TopScore` of it.
        max_examples: examples drawn for each promise.
        derandomize: draw the same examples in every run.

    Raises:
        AssertionError: with the promise that does not hold, and the smallest example found.
    """
    if isinstance(selector, Scorer) or (isinstance(selector, str) and selector in scorers):
        selector = TopScore(scorers.create(selector))
    part = selectors.create(selector)
    suite = Suite("selector", part, max_examples, derandomize)
    traits = part.traits
    cls = traits.needs_cls
    anything = draw.samples(needs_cls=cls)
    # Without rounding, equal scores are exactly equal, alone and in a batch.
    tied = draw.samples(needs_cls=cls, flavours=("axes",))
    smooth = draw.smooth_samples(needs_cls=cls)
    suite.refuses_what_it_must(model_info(8, (4, 4)))
    if adaptive_layers(part):
        hold_adaptive(suite, part)
        return
    suite.holds("exactly P of the places go, the others stay, P = 0 … limit", anything, _places)
    suite.holds("partners are kept tokens", anything, _partners)
    suite.holds("the highest scores stay, the lower place wins a tie", anything | tied, _by_score)
    suite.holds("inputs are not modified", anything, _inputs_stay)
    if traits.deterministic:
        suite.holds("deterministic: the same input, the same choice", anything | tied, _twice)
        suite.holds("an image is treated alone as in a batch", smooth | tied, _alone)
    if traits.equivariant:
        suite.holds("equivariant: permuting the tokens permutes the choice", smooth, _relabelled)
    if not traits.needs_grid:
        suite.holds("the grid is not read unless needs_grid is declared", smooth, _any_grid)


def _choices(part: Selector, sample: Sample) -> Iterator[tuple[int, Selection]]:
    """The selections for every P."""
    made, attention = built(part, sample)
    for count in _counts(part, sample.state):
        with torch.no_grad():
            chosen = made(sample.state, attention, count)
        yield count, chosen


def _counts(part: Selector, state: TokenState) -> range:
    n = state.num_tokens
    most = part.limit(n)
    require(isinstance(most, int) and most <= n, f"limit({n}) is {most!r}, of {n} tokens")
    return range(max(0, most) + 1)


def _places(part: Selector, sample: Sample) -> None:
    b, n = sample.state.index.shape
    for count, chosen in _choices(part, sample):
        if not isinstance(chosen, Selection):
            raise AssertionError(f"expected a Selection, got {chosen!r}")
        for name, places, width in (
            ("keep", chosen.keep, n - count),
            ("drop", chosen.drop, count),
        ):
            require(
                tuple(places.shape) == (b, width) and places.dtype == torch.long,
                f"P={count}: expected {name} of shape {(b, width)} and type int64, "
                f"got {tuple(places.shape)} and {places.dtype}",
            )
        everyone = torch.cat((chosen.keep, chosen.drop), dim=1).sort(dim=1).values
        require(
            bool((everyone == torch.arange(n)).all()),
            f"P={count}: keep {chosen.keep.tolist()} and drop {chosen.drop.tolist()} are not "
            f"the places 0 … {n - 1}, each once",
        )


def _partners(part: Selector, sample: Sample) -> None:
    for count, chosen in _choices(part, sample):
        if chosen.partner is not None:
            require(
                chosen.partner.shape == chosen.drop.shape,
                f"P={count}: expected a partner for each of drop, shape "
                f"{tuple(chosen.drop.shape)}, got {tuple(chosen.partner.shape)}",
            )
            stays = (chosen.partner[:, :, None] == chosen.keep[:, None, :]).any(dim=-1)
            require(bool(stays.all()), f"P={count}: partners {chosen.partner.tolist()} go too")


def _by_score(part: Selector, sample: Sample) -> None:
    n = sample.state.num_tokens
    for count, chosen in _choices(part, sample):
        if chosen.score is None:
            continue
        expected = tuple(sample.state.index.shape)
        require(
            tuple(chosen.score.shape) == expected and bool(chosen.score.isfinite().all()),
            f"expected finite scores of shape {expected}, got {tuple(chosen.score.shape)}",
        )
        order = chosen.score.sort(dim=1, descending=True, stable=True).indices
        best = order[:, : n - count].sort(dim=1).values
        require(
            bool((chosen.keep.sort(dim=1).values == best).all()),
            f"P={count}: of the scores {chosen.score.tolist()} the places {best.tolist()} "
            f"should stay, {chosen.keep.tolist()} did",
        )


def _inputs_stay(part: Selector, sample: Sample) -> None:
    made, attention = built(part, sample)
    with untouched(state=sample.state, attention=attention), torch.no_grad():
        for count in _counts(part, sample.state):
            made(sample.state, attention, count)


def _twice(part: Selector, sample: Sample) -> None:
    for (count, one), (_, other) in zip(
        _choices(part, sample), _choices(part, sample), strict=True
    ):
        require_same(one, other, f"P={count}, asked twice")


def _alone(part: Selector, sample: Sample) -> None:
    made, attention = built(part, sample)
    for count, together in _choices(part, sample):
        for i in range(together.keep.shape[0]):
            state, stats = alone(sample.state, attention, i)
            with torch.no_grad():
                single = made(state, stats, count)
            what = f"P={count}, image {i} alone and in the batch"
            _same_choice(single, _image(together, i), what, exact=sample.exact)


def _relabelled(part: Selector, sample: Sample) -> None:
    order = sample.some_order()
    pairs = zip(_choices(part, sample), _choices(part, sample.permuted(order)), strict=True)
    for (count, here), (_, there) in pairs:
        back = Selection(
            keep=order.gather(1, there.keep),
            drop=order.gather(1, there.drop),
            score=None if there.score is None else _unpermuted(there.score, order),
        )
        _same_choice(back, here, f"P={count}, permuted and not", exact=sample.exact)


def _any_grid(part: Selector, sample: Sample) -> None:
    line = replace(sample.state, grid=(1, sample.state.num_patches))
    pairs = zip(_choices(part, sample), _choices(part, replace(sample, state=line)), strict=True)
    for (count, one), (_, other) in pairs:
        require_same(one, other, f"P={count}, on its grid, and with the grid called a single row")


def _same_choice(one: Selection, other: Selection, what: str, *, exact: bool) -> None:
    """The same tokens go, but for those that rounding may have put on either side."""
    differs = _mask(one) != _mask(other)
    if not exact:
        if one.score is not None and other.score is not None:
            require_close(one.score, other.score, f"{what}: scores")
        differs &= ~_undecided(other)
    require(not bool(differs.any()), f"{what}: {one.drop.tolist()} and {other.drop.tolist()} go")


def _undecided(selection: Selection) -> Tensor:
    """Tokens whose score is, up to rounding, that of the best dropped token."""
    if selection.score is None or not selection.drop.shape[1]:
        return torch.zeros_like(_mask(selection))
    edge = selection.score.gather(1, selection.drop).amax(dim=1, keepdim=True)
    return (selection.score - edge).abs() <= 1e-9 * (1 + edge.abs())


def _mask(selection: Selection) -> Tensor:
    places = torch.cat((selection.keep, selection.drop), dim=1)
    return torch.zeros_like(places, dtype=torch.bool).scatter(1, selection.drop, True)


def _unpermuted(values: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(values).scatter(1, order, values)


def _image(selection: Selection, i: int) -> Selection:
    one = slice(i, i + 1)
    return Selection(
        keep=selection.keep[one],
        drop=selection.drop[one],
        score=None if selection.score is None else selection.score[one],
    )
