"""AdaMerge's matching."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, finest, product, unit_vectors
from tokenred.core.values import Count
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.selectors.padded import ByImage, living, padded_selection, ranked

Steepness = Annotated[float, Ge(1e-3), Le(1e3)]
Mean = Annotated[float, Ge(-1), Le(1)]
Deviation = Annotated[float, Ge(1e-12), Le(1)]


@selectors.register("SalienceMatching")
class SalienceMatching(ByImage):
    """Merge more in images whose tokens are alike (AdaMerge, Lee et al., arXiv 2605.27465).

    The salience ŝ of a token is its column sum of a softmax over the affinities of all tokens,
    scaled to [0, 1]. Each token of the first half finds the most similar token of the second, with
    the score ``ŝ·cos``. The mean score S̄ is compared with that of a calibration set, ``z = (S̄ −
    μ)/(σ·temperature)``, and ``⌊r_max·sigmoid(αz)⌋`` tokens with the highest scores merge,
    weighted by ŝ.

    Args:
        r_max: maximum number of tokens merged in a block.
        affinity: input of the softmax: ``"cosine"``, or ``"dot"`` as in the paper, which saturates
            on the features of real models.
        alpha, temperature: α and the temperature of z.
        mean, std: μ and σ of each block; None for z = 0, i.e. half of ``r_max`` everywhere.

    Shapes:
        returns: ``keep`` = the rest of the first half, then the second, then padding; ``drop``,
            ``partner`` and ``weight``.
    """

    traits = Traits(equivariant=False)

    r_max: Count = 14
    affinity: Literal["cosine", "dot"] = "cosine"
    alpha: Steepness = 1.0
    temperature: Steepness = 1.0
    mean: tuple[Mean, ...] | None = None
    std: tuple[Deviation, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ConfigError("SalienceMatching needs both mean and std, or neither.")

    per_block = ("mean", "std")
    calibration_passes = 2

    def probing(self, removed: float | None) -> Selector:
        return self if removed is None else self.replace(r_max=round(2 * removed))

    def measure(self, state: TokenState, attention: AttentionStats) -> Tensor:
        _, score, _, in_a = self._pairs(state, living(state))
        return mean_score(score, in_a)

    def calibrated(self, found: Sequence[Sequence[Tensor]]) -> Selector:
        scores = [torch.cat(list(batches)).double() for batches in found]
        return self.replace(
            mean=tuple(float(score.mean()) for score in scores),
            std=tuple(max(float(score.std(correction=0)), 1e-12) for score in scores),
        )

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(2 * tokens**2 * info.width)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        alive = living(state)
        salience, score, partner, in_a = self._pairs(state, alive)
        number = self._number(state, mean_score(score, in_a)).minimum(in_a.sum(dim=1))
        moves = in_a & (ranked(score) < number[:, None])
        rank = torch.arange(alive.shape[1], device=alive.device).expand_as(partner)
        weight = _of_groups(salience, partner, moves)
        chosen = padded_selection(rank, alive & ~moves, alive, partner)
        return replace(chosen, weight=weight.to(at_least_fp32(state.x.dtype)))

    def _pairs(
        self, state: TokenState, alive: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"], Tensor, Bool[Tensor, "b n"]]:
        """Salience, score and partner of each token, and which are in the first half."""
        x = finest(state.image.detach())  # scaling to [0, 1] amplifies rounding errors
        unit = unit_vectors(x)
        cosine = product(unit, unit.transpose(-2, -1))
        affinity = cosine if self.affinity == "cosine" else product(x, x.transpose(-2, -1))
        dead = ~alive
        soft = affinity.masked_fill(dead[:, None, :], -torch.inf).softmax(dim=-1)
        received = soft.masked_fill(dead[:, :, None], 0).sum(dim=1)
        low = received.masked_fill(dead, torch.inf).amin(dim=1, keepdim=True)
        high = received.masked_fill(dead, -torch.inf).amax(dim=1, keepdim=True)
        wide = high - low > 1e-6
        scaled = (received - low) / torch.where(wide, high - low, 1)
        salience = torch.where(wide, scaled, 1.0).masked_fill(dead, 0)
        places = torch.arange(alive.shape[1], device=alive.device)
        in_a = alive & (places < alive.sum(dim=1, keepdim=True) // 2)
        possible = in_a[:, :, None] & (alive & ~in_a)[:, None, :]
        closeness, partner = cosine.masked_fill(~possible, -torch.inf).max(dim=-1)
        score = torch.where(in_a, salience * closeness, -torch.inf)
        return salience, score, partner, in_a

    def _number(self, state: TokenState, score: Float[Tensor, "b"]) -> Tensor:
        if self.mean is None or self.std is None:
            z = torch.zeros_like(score)
        else:
            deviation = self.std[state.layer] * self.temperature
            z = (score - self.mean[state.layer]) / deviation
        return (self.r_max * (self.alpha * z).sigmoid()).floor().clamp_max(1e6).long()


def mean_score(score: Float[Tensor, "b n"], in_a: Bool[Tensor, "b n"]) -> Float[Tensor, "b"]:
    """S̄, the mean over the first half; 0 for an image with one token."""
    total = score.masked_fill(~in_a, 0).sum(dim=1)
    return total / in_a.sum(dim=1).clamp_min(1)


def _of_groups(
    salience: Float[Tensor, "b n"], partner: Tensor, moves: Bool[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """The weights of the means; groups without weight take the plain mean."""
    places = torch.arange(partner.shape[1], device=partner.device).expand_as(partner)
    group = torch.where(moves, partner, places)
    total = torch.zeros_like(salience).scatter_add(1, group, salience)
    return torch.where(total.gather(1, group) > 0, salience, 1.0)
