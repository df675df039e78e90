"""The promises of a selector, with given or adaptive counts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.core.errors import shown
from tokenred.core.part import Part
from tokenred.core.state import Selection
from tokenred.strategies.base import Scorer, Selector, required_by, scorers, selectors
from tokenred.strategies.selectors import TopScore
from tokenred.testing import draw
from tokenred.testing.sample import DEPTH, Sample, relabelled
from tokenred.testing.suite import Suite, require, require_close

Choices: TypeAlias = dict[int, Selection]
"""The selection for each P; only for 0 if the images determine the count."""


def check_selector(selector: Selector | Scorer | str, *, max_examples: int = 25) -> None:
    """Check that a selector keeps its contract and the traits that it declares.

    For every P from 0 to its `limit`, P places are dropped and all others kept, and partners are
    kept tokens. If the selection has scores, the highest are kept, and of equal ones the lower
    place. Inputs are not modified. Results are deterministic, and the same for an image alone and
    in a batch, even with ties. With `equivariant`, permuting the tokens permutes the selection.

    If the images determine the counts (`Selector.adaptive`), every living token is either kept or
    dropped, and padding is neither; ``keep`` is as wide as the image that keeps most, and every
    image keeps a token.

    Args:
        selector: an instance, a registered name, or a scorer, which means its `TopScore`.
        max_examples: as for `check_scorer`.

    Raises:
        AssertionError: with the broken promise and the smallest example found.
    """
    if isinstance(selector, Scorer) or (isinstance(selector, str) and selector in scorers):
        selector = TopScore(scorers.create(selector))
    suite = _SelectorSuite(selectors.create(selector), max_examples)
    cls = suite.part.traits.needs_cls
    anything, smooth = draw.samples(needs_cls=cls), draw.smooth_samples(needs_cls=cls)
    # Without rounding, equal scores are exactly equal, alone and in a batch.
    tied = draw.samples(needs_cls=cls, flavours=("axes",))
    if suite.adaptive:
        promise = "each living token is kept or dropped once, and no padding"
        suite.holds(promise, anything | tied, suite.counts)
    else:
        promise = "exactly P places are dropped and the others kept, P = 0 … limit"
        suite.holds(promise, anything, suite.counts)
        suite.holds("partners are kept tokens", anything, suite.partners)
        suite.holds(suite.finite, anything | tied, suite.by_score)
    # In a network, rounding may break ties otherwise in a batch.
    learned = type(suite.part).learned_macs is not Part.learned_macs
    batches = smooth if learned else smooth | tied
    suite.keeps_common_promises(anything | tied, batches=batches, smooth=smooth)
    suite.tell()


class _SelectorSuite(Suite[Selector, Choices]):
    kind = "selector"
    answer = "choice"
    finite = "finite scores, the highest scores are kept, the lower place wins a tie"

    @property
    def adaptive(self) -> list[int]:
        """The blocks in which the images determine how many tokens are dropped."""
        return [layer for layer in range(DEPTH) if self.part.adaptive(layer, DEPTH)]

    def call(self, case: Sample) -> tuple[Callable[[], Choices], Mapping[str, object]]:
        made, state = self.built(case), case.state
        attention = case.attention(required_by(made))
        counts: tuple[int, ...] = (0,)
        if self.adaptive:
            layer = state.layer if state.layer in self.adaptive else self.adaptive[0]
            state = replace(state, layer=layer)
        else:
            n = state.num_tokens
            most = self.part.limit(n)
            require(isinstance(most, int) and most <= n, f"limit({n}) is {most!r}, of {n} tokens")
            counts = tuple(self.part.counts(state))
        given = {"state": state, "attention": attention}
        return lambda: {p: self._chosen(made(state, attention, p)) for p in counts}, given

    def _chosen(self, found: object) -> Selection:
        marked = "with alive and gone, " if self.adaptive else ""
        if not isinstance(found, Selection) or (
            self.adaptive and (found.alive is None or found.gone is None)
        ):
            raise AssertionError(f"expected a Selection {marked}got {shown(found)}")
        return found

    def numbers(self, answer: Choices) -> Mapping[str, Tensor]:
        # Where the images determine the counts, padding may have any score.
        scores = {} if self.adaptive else {p: found.score for p, found in answer.items()}
        return {f"P={p}: scores": score for p, score in scores.items() if score is not None}

    def agree(self, one: Choices, other: Choices, what: str, case: Sample) -> None:
        """The same tokens are kept, except those that rounding may put on either side."""
        n = case.state.num_tokens
        for count, chosen in one.items():
            there = other[count]
            differs = _stays(chosen, n) != _stays(there, n)
            if not case.exact and chosen.score is not None and there.score is not None:
                require_close(chosen.score, there.score, f"P={count}, {what}: scores")
                differs &= ~_undecided(there.score, there.drop)
            if bool(differs.any()):
                stay = f"{chosen.keep.tolist()} and {there.keep.tolist()}"
                raise AssertionError(f"P={count}, {what}: kept {stay}")

    def moved(self, answer: Choices, order: Int[Tensor, "b n"]) -> Choices:
        return {count: relabelled(chosen, order) for count, chosen in answer.items()}

    def counts(self, case: Sample) -> None:
        b, n = case.state.index.shape
        size = case.state.image_size if self.adaptive else None
        living = torch.ones(b, n, dtype=torch.bool) if size is None else size > 0
        for count, chosen in self.run(case).items():
            if self.adaptive:
                self._widths(chosen, living)
            else:
                for name, width in (("keep", n - count), ("drop", count)):
                    places = getattr(chosen, name)
                    require(
                        tuple(places.shape) == (b, width) and places.dtype == torch.long,
                        f"P={count}: expected {name} of shape {(b, width)} and type int64, "
                        f"got {tuple(places.shape)} and {places.dtype}",
                    )
            stays, goes = _stays(chosen, n), _times(chosen.drop, chosen.gone, n)
            require(
                stays + goes == living.long(),
                f"P={count}: keep {chosen.keep.tolist()} and drop {chosen.drop.tolist()} do not "
                f"name each of the {n} places (alive: {living.tolist()}) once",
            )

    def _widths(self, chosen: Selection, living: Tensor) -> None:
        for name, places, counted in (
            ("keep", chosen.keep, chosen.alive),
            ("drop", chosen.drop, chosen.gone),
        ):
            require(
                counted is not None
                and (places.shape, torch.bool) == (counted.shape, counted.dtype),
                f"expected a bool for each place of {name}, {tuple(places.shape)}, got {counted}",
            )
        kept = _stays(chosen, living.shape[1]).sum(dim=1)
        require(kept >= living.any(dim=1), f"images keep {kept.tolist()} tokens")
        require(
            chosen.keep.shape[1] == int(kept.max()),
            f"keep has {chosen.keep.shape[1]} places for at most {int(kept.max())} tokens",
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
            require(stays, f"P={count}: partners {chosen.partner.tolist()} are dropped")

    def by_score(self, case: Sample) -> None:
        n, expected = case.state.num_tokens, tuple(case.state.index.shape)
        for count, chosen in self.run(case).items():
            if chosen.score is None:
                continue
            require(
                tuple(chosen.score.shape) == expected,
                f"expected scores of shape {expected}, got {tuple(chosen.score.shape)}",
            )
            order = chosen.score.sort(dim=1, descending=True, stable=True).indices
            best = order[:, : n - count].sort(dim=1).values
            require(
                chosen.keep.sort(dim=1).values == best,
                f"P={count}: of the scores {chosen.score.tolist()}, expected to keep the places "
                f"{best.tolist()}, got {chosen.keep.tolist()}",
            )


def _times(places: Tensor, counted: Tensor | None, n: int) -> Int[Tensor, "b n"]:
    """How often each of ``n`` places is named."""
    ones = torch.ones_like(places) if counted is None else counted.long()
    return torch.zeros(places.shape[0], n, dtype=torch.long).scatter_add(1, places, ones)


def _stays(chosen: Selection, n: int) -> Int[Tensor, "b n"]:
    return _times(chosen.keep, chosen.alive, n)


def _undecided(score: Tensor, drop: Tensor) -> Tensor:
    """Tokens whose score equals that of the best dropped token, up to rounding."""
    if not drop.shape[1]:
        return torch.zeros_like(score, dtype=torch.bool)
    edge = score.gather(1, drop).amax(dim=1, keepdim=True)
    return (score - edge).abs() <= 1e-9 * (1 + edge.abs())
