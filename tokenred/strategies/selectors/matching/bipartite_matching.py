"""ToMe's matching."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats, mean_keys
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, product, unit_vectors
from tokenred.strategies.base import Selector, selectors

_KEYS: tuple[AttentionStat, ...] = (AttentionStat.keys(),)
_IMPORTANCE = (AttentionStat.row("cls", "mean"), AttentionStat.values())


@selectors.register("BipartiteMatching")
class BipartiteMatching(Selector):
    """Bipartite soft matching (ToMe, Bolya et al., ICLR 2023, section 3).

    The sequence, prefix included, is split into even (A) and odd positions (B). Each image token in
    A finds the most similar image token in B, by the cosine of head-averaged keys; the P closest
    pairs merge. At most half of the image tokens can be removed at once: a larger P is capped.

    Args:
        weights: weight of each token in the mean that `Merge` takes: ``"size"``, the number of
            patches it represents; or ``"importance"``, the mean attention of CLS to it, times the
            norm of its head-averaged value (ToMeCIS).
        order: order of the rest of A, on which the next matching depends: by ``"place"``; or
            ``"released"``, by descending similarity on models without prefix tokens.

    Shapes:
        returns: ``keep`` = the rest of A, then B; ``drop`` = merged tokens of A, best pair first;
            ``partner`` = their tokens in B.
    """

    version = 2

    weights: Literal["size", "importance"] = "size"
    order: Literal["place", "released"] = "place"

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """The row of CLS is read only for the importance."""
        return Traits(equivariant=False, needs_cls=self.weights == "importance")

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return _KEYS if self.weights == "size" else (*_KEYS, *_IMPORTANCE)

    def limit(self, tokens: int) -> int:
        return tokens // 2

    caps = True

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens // 2) * (tokens - tokens // 2) * info.head_dim)

    def pairs(
        self, state: TokenState, attention: AttentionStats
    ) -> tuple[Float[Tensor, "b i"], Int[Tensor, "b i"]]:
        """For each token of A the highest similarity, and the number of that token of B."""
        metric = unit_vectors(mean_keys(attention)[:, state.num_prefix :])
        b, n = metric.shape[:2]
        even = state.num_prefix % 2  # the first image token at an even position in the sequence
        similarity = product(metric[:, even::2], metric[:, 1 - even :: 2].transpose(-2, -1))
        if n == 1:  # nothing to merge with, and nothing to remove
            similarity = metric.new_zeros(b, 1 - even, 1)
        return similarity.max(dim=-1)

    def by_place(self, state: TokenState) -> bool:
        """Whether the rest of A is ordered by place."""
        return self.order == "place" or state.num_prefix > 0

    def importance(self, state: TokenState, attention: AttentionStats) -> Tensor | None:
        """The weights of the image tokens; None for their sizes."""
        if self.weights == "size":
            return None
        row, values = (attention[stat] for stat in _IMPORTANCE)
        mean = values[:, :, state.num_prefix :].mean(dim=1, dtype=at_least_fp32(values.dtype))
        length: Tensor = torch.linalg.vector_norm(mean, dim=-1)
        return row.to(mean.dtype) * length

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        closeness, partner = self.pairs(state, attention)
        order = closeness.sort(dim=1, descending=True, stable=True).indices
        places, even = torch.arange(state.num_tokens, device=order.device), state.num_prefix % 2
        a, b = (places[first::2].expand(order.shape[0], -1) for first in (even, 1 - even))
        into, own = partner.gather(1, order[:, :count]), a.gather(1, order)
        rest = own[:, count:]
        rest = rest.sort(dim=1).values if self.by_place(state) else rest
        return Selection(
            keep=torch.cat((rest, b), dim=1),
            drop=own[:, :count],
            partner=b.gather(1, into),
            weight=self.importance(state, attention),
            slot=into + rest.shape[1],
        )
