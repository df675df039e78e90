"""ToMe's matching."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
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

    version: ClassVar[int] = 2

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

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        metric = unit_vectors(mean_keys(attention)[:, state.num_prefix :])
        b, n = metric.shape[:2]
        even = state.num_prefix % 2  # the first image token at an even position in the sequence
        targets = torch.arange(1 - even, n, 2, device=metric.device)
        similarity = product(metric[:, even::2], metric[:, 1 - even :: 2].transpose(-2, -1))
        if n == 1:  # nothing to merge with, and nothing to remove
            similarity = metric.new_zeros(b, 1 - even, 1)
        closeness, partner = similarity.max(dim=-1)
        order = closeness.sort(dim=1, descending=True, stable=True).indices
        merged, rest = order[:, :count], order[:, count:]
        if self.order == "place" or state.num_prefix:
            rest = rest.sort(dim=1).values
        into = partner.gather(1, merged)
        return Selection(
            keep=torch.cat((2 * rest + even, targets.expand(b, -1)), dim=1),
            drop=2 * merged + even,
            partner=2 * into + (1 - even),
            weight=None if self.weights == "size" else _importance(attention, state.num_prefix),
            slot=into + rest.shape[1],
        )


def _importance(attention: AttentionStats, first: int) -> Float[Tensor, "b n"]:
    row, values = (attention[stat] for stat in _IMPORTANCE)
    mean = values[:, :, first:].mean(dim=1, dtype=at_least_fp32(values.dtype))
    length: Tensor = torch.linalg.vector_norm(mean, dim=-1)
    return row.to(mean.dtype) * length
