"""The promises of a selector, of a number of tokens or of as many as the image needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.core.state import Selection
from tokenred.strategies.base import Scorer, Selector, scorers, selectors
from tokenred.strategies.selectors import TopScore
from tokenred.testing import draw
from tokenred.testing.sample import DEPTH, Sample
from tokenred.testing.suite import Suite, require, require_close

__all__ = ["check_selector"]

Choices: TypeAlias = dict[int, Selection]
"""By P, what was chosen."""


def check_selector(
    selector: Selector | Scorer | str, *, max_examples: int = 25, derandomize: bool = True
) -> None:
    """Hold a selector to its contract and to the traits that it declares.

    For every P from 0 to its `limit`: kept and dropped places make up all of them, P are dropped,
    partners are kept ones; where the selection names its scores, the highest stay and the lower
    place wins a tie; inputs are left alone; the same answer twice, and for an image alone as in a
    batch, ties included; relabelled with the tokens where `equivariant`.

    Of a selector whose counts depend on the image (`Selector.adaptive`) instead: every living token
    stays or goes, each once, and padding does neither; ``keep`` is as wide as the image that keeps
    most, and every image keeps a token.

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
    cls = part.traits.needs_cls
    anything = draw.samples(needs_cls=cls)
    # Without rounding, equal scores are exactly equal, alone and in a batch.
    tied = draw.samples(needs_cls=cls, flavours=("axes",))
    smooth = draw.smooth_samples(needs_cls=cls)
    suite: _SelectorSuite | _AdaptiveSuite
    if any(part.adaptive(layer, DEPTH) for layer in range(DEPTH)):
        suite = _AdaptiveSuite(part, max_examples, derandomize)
        suite.refuses_what_it_must()
        promise = "living tokens stay or go, each once, and no padding"
        suite.holds(promise, anything | tied, suite.places)
    else:
        suite = _SelectorSuite(part, max_examples, derandomize)
        suite.refuses_what_it_must()
        promise = "exactly P of the places go, the others stay, P = 0 … limit"
        suite.holds(promise, anything, suite.places)
        suite.holds("partners are kept tokens", anything, suite.partners)
        promise = "the highest scores stay, the lower place wins a tie"
        suite.holds(promise, anything | tied, suite.by_score)
    suite.keeps_common_promises(
        anything, again=anything | tied, batches=smooth | tied, smooth=smooth
    )


class _SelectorSuite(Suite[Selector, Sample, Choices]):
    kind = "selector"
    answer = "choice"

    def call(self, case: Sample) -> tuple[Callable[[], Choices], Mapping[str, object]]:
        made = self.built(case.info, case.state.x.dtype)
        attention = case.attention(made.requires)
        n = case.state.num_tokens
        most = self.part.limit(n)
        require(isinstance(most, int) and most <= n, f"limit({n}) is {most!r}, of {n} tokens")
        given = {"state": case.state, "attention": attention}
        counts = range(max(0, most) + 1)
        return lambda: {p: made(case.state, attention, p) for p in counts}, given

    def agree(self, one: Choices, other: Choices, what: str, case: Sample) -> None:
        """The same tokens go, but for those that rounding may have put on either side."""
        for count, chosen in one.items():
            there = other[count]
            differs = _goes(chosen) != _goes(there)
            if not case.exact:
                if chosen.score is not None and there.score is not None:
                    require_close(chosen.score, there.score, f"P={count}, {what}: scores")
                differs &= ~_undecided(there)
            if bool(differs.any()):
                gone = f"{chosen.drop.tolist()} and {there.drop.tolist()}"
                raise AssertionError(f"P={count}, {what}: {gone} go")

    def image(self, answer: Choices, i: int) -> Choices:
        return {
            p: replace(
                _changed(chosen, lambda t: t[i : i + 1]),
                score=None if chosen.score is None else chosen.score[i : i + 1],
            )
            for p, chosen in answer.items()
        }

    def moved(self, answer: Choices, order: Int[Tensor, "b n"]) -> Choices:
        now_at = order.argsort(dim=1)
        moved = {}
        for count, chosen in answer.items():
            places = _changed(chosen, lambda t: now_at.gather(1, t))
            score = None if chosen.score is None else chosen.score.gather(1, order)
            moved[count] = replace(places, score=score)
        return moved

    def places(self, case: Sample) -> None:
        b, n = case.state.index.shape
        for count, chosen in self.run(case).items():
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

    def partners(self, case: Sample) -> None:
        for count, chosen in self.run(case).items():
            if chosen.partner is None:
                continue
            require(
                chosen.partner.shape == chosen.drop.shape,
                f"P={count}: expected a partner for each of drop, shape "
                f"{tuple(chosen.drop.shape)}, got {tuple(chosen.partner.shape)}",
            )
            stays = (chosen.partner[:, :, None] == chosen.keep[:, None, :]).any(dim=-1)
            require(bool(stays.all()), f"P={count}: partners {chosen.partner.tolist()} go too")

    def by_score(self, case: Sample) -> None:
        n, expected = case.state.num_tokens, tuple(case.state.index.shape)
        for count, chosen in self.run(case).items():
            if chosen.score is None:
                continue
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


class _AdaptiveSuite(Suite[Selector, Sample, Selection]):
    kind = "selector"
    answer = "choice"

    def call(self, case: Sample) -> tuple[Callable[[], Selection], Mapping[str, object]]:
        adaptive = [layer for layer in range(DEPTH) if self.part.adaptive(layer, DEPTH)]
        layer = case.state.layer if case.state.layer in adaptive else adaptive[0]
        state = replace(case.state, layer=layer)
        made = self.built(case.info, state.x.dtype)
        attention = case.attention(made.requires)

        def choose() -> Selection:
            chosen = made(state, attention, 0)
            if not isinstance(chosen, Selection) or chosen.alive is None or chosen.gone is None:
                raise AssertionError(f"expected a Selection with alive and gone, got {chosen!r}")
            return chosen

        return choose, {"state": state, "attention": attention}

    def agree(self, one: Selection, other: Selection, what: str, case: Sample) -> None:
        n = case.state.num_tokens
        here, there = (_times(chosen.keep, chosen.alive, n) for chosen in (one, other))
        if bool((here != there).any()):
            raise AssertionError(f"{what}: {here.tolist()} and {there.tolist()} stay")

    def image(self, answer: Selection, i: int) -> Selection:
        alive = None if answer.alive is None else answer.alive[i : i + 1]
        return replace(_changed(answer, lambda t: t[i : i + 1]), alive=alive)

    def moved(self, answer: Selection, order: Int[Tensor, "b n"]) -> Selection:
        now_at = order.argsort(dim=1)
        return replace(_changed(answer, lambda t: now_at.gather(1, t)), alive=answer.alive)

    def places(self, case: Sample) -> None:
        chosen, n = self.run(case), case.state.num_tokens
        size = case.state.image_size
        living = torch.ones_like(case.state.index, dtype=torch.bool) if size is None else size > 0
        for name, places, counted in (
            ("keep", chosen.keep, chosen.alive),
            ("drop", chosen.drop, chosen.gone),
        ):
            assert counted is not None
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


def _changed(selection: Selection, change: Callable[[Tensor], Tensor]) -> Selection:
    """The selection of other places; nothing else that it says."""
    return Selection(keep=change(selection.keep), drop=change(selection.drop))


def _times(places: Tensor, counted: Tensor | None, n: int) -> Tensor:
    """How often each of ``n`` places is named, ``(b, n)``."""
    assert counted is not None
    none = torch.zeros(places.shape[0], n, dtype=torch.long)
    return none.scatter_add(1, places, counted.long())


def _goes(selection: Selection) -> Tensor:
    """Which tokens go, ``(b, n)``."""
    places = torch.cat((selection.keep, selection.drop), dim=1)
    return torch.zeros_like(places, dtype=torch.bool).scatter(1, selection.drop, True)


def _undecided(selection: Selection) -> Tensor:
    """Tokens whose score is, up to rounding, that of the best dropped token."""
    if selection.score is None or not selection.drop.shape[1]:
        return torch.zeros_like(_goes(selection))
    edge = selection.score.gather(1, selection.drop).amax(dim=1, keepdim=True)
    return (selection.score - edge).abs() <= 1e-9 * (1 + edge.abs())
