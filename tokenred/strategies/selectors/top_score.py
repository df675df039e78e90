"""The tokens with the highest scores."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import PartError, shown
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part, Traits
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Scorer, Selector, required_by, scorers, selectors


@selectors.register("TopScore")
class TopScore(Selector):
    """Keep the ``n − P`` highest scores, in grid order; ties go to the lower position.

    Args:
        scorer: a scorer or its name.
    """

    scorer: Scorer

    def __post_init__(self) -> None:
        object.__setattr__(self, "scorer", scorers.create(self.scorer))

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of the scorer."""
        return self.scorer.traits

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return required_by(self.scorer)

    def check(self, info: ModelInfo) -> None:
        self.scorer.check(info)

    def build(self, info: ModelInfo) -> Part | nn.Module:
        built = self.scorer.built_for(info)
        if built.network is None:
            return self.replace(scorer=built)
        return nn.ModuleDict({"scorer": built.network})

    def with_network(self, network: nn.Module) -> Any:  # self, which shape checks cannot read
        scorer = self.scorer.with_network(network.get_submodule("scorer"))
        return super(TopScore, self.replace(scorer=scorer)).with_network(network)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return self.scorer.macs(info, tokens, removed)

    def scores(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        """The scores of the tokens that remain.

        Raises:
            PartError: if the scorer does not give one for each image token.
        """
        score = self.scorer(state, attention)
        expected = (state.x.shape[0], state.num_tokens)
        if tuple(getattr(score, "shape", ())) != expected:
            got = tuple(score.shape) if isinstance(score, Tensor) else shown(score)
            raise PartError(
                f"{type(self.scorer).__name__} must return one score per image token, a tensor of "
                f"shape {expected} (prefix tokens are not scored), got {got}."
                + (" Is a return missing?" if score is None else "")
            )
        return score

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        return keep_best(self.scores(state, attention), count)


def keep_best(score: Float[Tensor, "b n"], count: int) -> Selection:
    """Keep all but ``count`` tokens, by position; those that go are ordered by score."""
    order = score.sort(dim=1, descending=True, stable=True).indices
    kept = score.shape[1] - count
    return Selection(order[:, :kept].sort(dim=1).values, order[:, kept:], score=score)
