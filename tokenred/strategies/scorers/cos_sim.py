"""Similarity to the other tokens."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats, mean_keys
from tokenred.core.info import ModelInfo
from tokenred.core.state import TokenState
from tokenred.core.tensors import unit_vectors
from tokenred.strategies.base import Scorer, scorers


@scorers.register("CosSim")
class CosSim(Scorer):
    """Minus the mean cosine similarity to the other tokens: unusual ones are kept (GTP, Fig. 5).

    Linear in n: the mean similarity to all tokens is the product with the sum of the unit vectors.

    Args:
        on: what to compare, head-averaged ``"keys"`` or ``"features"``.
    """

    version = 2

    on: Literal["keys", "features"] = "keys"

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.keys(),) if self.on == "keys" else ()

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(tokens * (info.head_dim if self.on == "keys" else info.width))

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        keys = self.on == "keys"
        unit = unit_vectors(mean_keys(attention)[:, state.num_prefix :] if keys else state.image)
        total = unit.sum(dim=1, keepdim=True)
        others = (unit * (total - unit)).sum(dim=-1)
        return -others / max(1, state.num_tokens - 1)
