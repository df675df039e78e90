"""MCTF's matching."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import product, unit_vectors
from tokenred.core.values import Magnitude
from tokenred.strategies.base import Selector, selectors


@selectors.register("MultiCriteria")
class MultiCriteria(Selector):
    """Match by similarity, information and size, in both directions (MCTF, Lee et al., CVPR 2024).

    The sequence is split as in ToMe. A pair scores

        ``((cos + 1)/2)^(1/τ_sim) · (1/(a_i a_j))^(1/τ_info) · (1/(s_i s_j))^(1/τ_size)``

    with the cosine of the features, attention received a and sizes s. Half of the P best pairs move
    from A to B; then, by the same scores, the other half moves from B into what is left of A,
    together with the tokens that joined them.

    Args:
        tau_similarity, tau_information, tau_size: temperatures; 0 omits a criterion.
        bidirectional: match in both directions; otherwise all move from A to B.
        pooling: weight of each token in a mean: ``"attention_size"`` a·s, ``"size"`` s, or
            ``"mean"`` 1.

    Shapes:
        returns: ``keep`` = the rest of A, then the rest of B (by descending score of the second
            matching, if there is one); ``drop``, ``partner`` and ``weight``.
    """

    traits = Traits(equivariant=False)

    tau_similarity: Magnitude = 1.0
    tau_information: Magnitude = 20.0
    tau_size: Magnitude = 40.0
    bidirectional: bool = True
    pooling: Literal["attention_size", "size", "mean"] = "attention_size"

    requires = (AttentionStat.column_sum("mean", exclude_self=False),)

    def limit(self, tokens: int) -> int:
        return tokens // 2

    caps = True

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens // 2) * (tokens - tokens // 2) * info.width)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        received = attention[self.requires[0]].to(torch.promote_types(state.x.dtype, torch.float32))
        size = torch.ones_like(received) if state.size is None else state.image_size
        assert size is not None
        n, even = state.num_tokens, state.num_prefix % 2
        places = torch.arange(n, device=received.device).expand_as(received)
        if n < 2:  # nothing to merge with, and nothing to remove
            return Selection(keep=places, drop=places[:, :0], partner=places[:, :0])
        a, b = places[:, even::2], places[:, 1 - even :: 2]
        score = self._scores(state, received, size.to(received.dtype), a, b)
        forward = count // 2 if self.bidirectional else count
        best, nearest = score.max(dim=2)
        order = best.sort(dim=1, descending=True, stable=True).indices
        gone, rest = order[:, :forward], order[:, forward:].sort(dim=1).values
        sources, partners = a.gather(1, gone), b.gather(1, nearest.gather(1, gone))
        left = a.gather(1, rest)
        if not self.bidirectional:
            keep = torch.cat((left, b), dim=1)
            return Selection(keep, sources, partners, weight=self._weight(received, size))
        back = count - forward
        again = score.gather(1, rest[:, :, None].expand(-1, -1, b.shape[1]))
        best, nearest = again.max(dim=1)
        order = best.sort(dim=1, descending=True, stable=True).indices
        moved = b.gather(1, order[:, :back])
        into = left.gather(1, nearest.gather(1, order[:, :back]))
        # Tokens that joined a moving token of B move with it.
        target = places.scatter(1, moved, into)
        return Selection(
            keep=torch.cat((left, b.gather(1, order[:, back:])), dim=1),
            drop=torch.cat((sources, moved), dim=1),
            partner=torch.cat((target.gather(1, partners), into), dim=1),
            weight=self._weight(received, size),
        )

    def _scores(
        self, state: TokenState, received: Tensor, size: Tensor, a: Tensor, b: Tensor
    ) -> Float[Tensor, "b i j"]:
        unit = unit_vectors(state.image.detach())
        even = state.num_prefix % 2
        cosine = product(unit[:, even::2], unit[:, 1 - even :: 2].transpose(-2, -1))
        # Logarithms keep the order and avoid overflow.
        score = torch.zeros_like(cosine)
        if self.tau_similarity:
            score = score + ((cosine + 1) / 2).clamp_min(1e-30).log() / self.tau_similarity
        for tau, of in ((self.tau_information, received), (self.tau_size, size)):
            if tau:
                log = of.clamp_min(1e-30).log() / tau
                score = score - log.gather(1, a)[:, :, None] - log.gather(1, b)[:, None, :]
        return score

    def _weight(self, received: Tensor, size: Tensor) -> Float[Tensor, "b n"]:
        if self.pooling == "mean":
            return torch.ones_like(received)
        size = size.to(received.dtype)
        return size if self.pooling == "size" else received * size
