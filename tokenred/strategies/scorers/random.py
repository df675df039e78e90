"""Chance."""

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.part import Traits
from tokenred.core.state import TokenState
from tokenred.core.values import Count
from tokenred.strategies.base import Scorer, scorers

_PRIME = 2**31 - 1


@scorers.register("Random")
class Random(Scorer):
    """A seeded random number for each block and position: the baseline of every comparison.

    A hash of only (seed, block, position on the grid): the same on every device, for any batch size
    and any split of the data over processes.

    Args:
        seed: an integer ≥ 0.

    Shapes:
        returns: ``(b, n)`` in [0, 1).
    """

    traits = Traits(equivariant=True)
    version = 2

    seed: Count = 0

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        salt = (self.seed * 7919 + state.layer * 104729 + 12345) % _PRIME
        value = (state.index + 2) * 69621 % _PRIME
        for _ in range(4):  # Lehmer steps, with the high bits folded into the low ones
            value = ((value ^ (value >> 13)) * 48271 + salt) % _PRIME
        return (value >> 7).to(torch.float32) / (1 << 24)  # without float64, which MPS lacks
