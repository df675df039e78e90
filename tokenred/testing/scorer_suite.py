"""The promises of a scorer."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.core.errors import shown
from tokenred.strategies.base import Scorer, required_by, scorers
from tokenred.testing import draw
from tokenred.testing.sample import Sample
from tokenred.testing.suite import Suite, require, require_close


def check_scorer(scorer: Scorer | str, *, max_examples: int = 25) -> None:
    """Check that a scorer keeps its contract and the traits that it declares, and print a line.

    There is one finite number per image token. Inputs are not modified. Results are deterministic,
    and the same for an image alone and in a batch. With `equivariant`, permuting the tokens
    permutes the scores; without `needs_grid`, the grid is not read. A model that lacks what the
    scorer needs is refused.

    Args:
        scorer: an instance, or a registered name.
        max_examples: examples drawn for each promise.

    Raises:
        AssertionError: with the broken promise and the smallest example found.
    """
    suite = _ScorerSuite(scorers.create(scorer), max_examples)
    cls = suite.part.traits.needs_cls
    anything = draw.samples(needs_cls=cls)
    suite.holds(suite.finite, anything, suite.shape)
    double = draw.samples(needs_cls=cls, dtypes=(torch.float64,))
    smooth = draw.smooth_samples(needs_cls=cls)
    suite.keeps_common_promises(anything, batches=double, smooth=smooth)
    suite.tell()


class _ScorerSuite(Suite[Scorer, Tensor]):
    kind = "scorer"
    answer = "scores"
    finite = "one finite score per image token, shape (b, n)"

    def call(self, case: Sample) -> tuple[Callable[[], Tensor], Mapping[str, object]]:
        made = self.built(case)
        attention = case.attention(required_by(made))
        return lambda: made(case.state, attention), {"state": case.state, "attention": attention}

    def numbers(self, answer: Tensor) -> Mapping[str, Tensor]:
        return {"scores": answer} if isinstance(answer, Tensor) else {}

    def agree(self, one: Tensor, other: Tensor, what: str, case: Sample) -> None:
        require_close(one, other, what)

    def moved(self, answer: Tensor, order: Int[Tensor, "b n"]) -> Tensor:
        return answer.gather(1, order)

    def shape(self, case: Sample) -> None:
        score, expected = self.run(case), tuple(case.state.index.shape)
        if not isinstance(score, Tensor):
            raise AssertionError(f"expected a tensor, got {shown(score)}")
        require(
            tuple(score.shape) == expected,
            f"expected shape {expected}, image tokens only; got {tuple(score.shape)}",
        )
        require(score.is_floating_point(), f"expected floating-point scores, got {score.dtype}")
