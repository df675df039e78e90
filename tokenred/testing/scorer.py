"""The promises of a scorer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokenred.strategies.base import Scorer, scorers
from tokenred.testing import draw
from tokenred.testing.compare import require, require_close, require_same, untouched
from tokenred.testing.runner import Suite, built
from tokenred.testing.sample import Sample, alone, model_info

__all__ = ["check_scorer"]


def check_scorer(scorer: Scorer | str, *, max_examples: int = 25, derandomize: bool = True) -> None:
    """Hold a scorer to its contract and to the traits that it declares.

    One finite number for each image token; inputs left alone; the same answer twice, and for an
    image alone as in a batch; relabelled with the tokens where `equivariant`; no look at the grid
    unless `needs_grid`; refusal of models that lack what it needs.

    Args:
        scorer: an instance, or a registered name.
        max_examples: examples drawn for each promise.
        derandomize: draw the same examples in every run.

    Raises:
        AssertionError: with the promise that does not hold, and the smallest example found.
    """
    part = scorers.create(scorer)
    suite = Suite("scorer", part, max_examples, derandomize)
    traits = part.traits
    cls = traits.needs_cls
    anything = draw.samples(needs_cls=cls)
    double = draw.samples(needs_cls=cls, dtypes=(torch.float64,))
    smooth = draw.smooth_samples(needs_cls=cls)
    suite.refuses_what_it_must(model_info(8, (4, 4)))
    suite.holds("one finite score for each image token, shape (b, n)", anything, _shape)
    suite.holds("inputs are not modified", anything, _inputs_stay)
    if traits.deterministic:
        suite.holds("deterministic: the same input, the same scores", anything, _twice)
        suite.holds("an image is scored alone as in a batch", double, _alone)
    if traits.equivariant:
        suite.holds("equivariant: permuting the tokens permutes the scores", smooth, _relabelled)
    if not traits.needs_grid:
        suite.holds("the grid is not read unless needs_grid is declared", smooth, _any_grid)


def _score(part: Scorer, sample: Sample) -> Tensor:
    made, attention = built(part, sample)
    with torch.no_grad():
        score: Tensor = made(sample.state, attention)
    return score


def _shape(part: Scorer, sample: Sample) -> None:
    score = _score(part, sample)
    expected = tuple(sample.state.index.shape)
    if not isinstance(score, Tensor):
        raise AssertionError(f"expected a tensor, got {score!r}")
    require(
        tuple(score.shape) == expected,
        f"expected shape {expected}, image tokens only; got {tuple(score.shape)}",
    )
    require(score.is_floating_point(), f"expected floating-point scores, got {score.dtype}")
    require(bool(score.isfinite().all()), "scores are not finite")


def _inputs_stay(part: Scorer, sample: Sample) -> None:
    made, attention = built(part, sample)
    with untouched(state=sample.state, attention=attention), torch.no_grad():
        made(sample.state, attention)


def _twice(part: Scorer, sample: Sample) -> None:
    require_same(_score(part, sample), _score(part, sample), "asked twice")


def _alone(part: Scorer, sample: Sample) -> None:
    made, attention = built(part, sample)
    with torch.no_grad():
        together = made(sample.state, attention)
        for i in range(together.shape[0]):
            one = made(*alone(sample.state, attention, i))
            require_close(one, together[i : i + 1], f"image {i} alone and in the batch")


def _relabelled(part: Scorer, sample: Sample) -> None:
    order = sample.some_order()
    permuted = _score(part, sample.permuted(order))
    require_close(permuted, _score(part, sample).gather(1, order), "scores of permuted tokens")


def _any_grid(part: Scorer, sample: Sample) -> None:
    line = replace(sample.state, grid=(1, sample.state.num_patches))
    one, other = _score(part, sample), _score(part, replace(sample, state=line))
    require_same(one, other, "on its grid, and with the grid called a single row")
