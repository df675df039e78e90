"""ATS's sampling, with a number of tokens that depends on the image."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.core.values import Blocks, Size, Sizes
from tokenred.strategies.base import selectors
from tokenred.strategies.schedule import check_each
from tokenred.strategies.selectors.padded import ByImage, living, padded_selection

_STATS = (AttentionStat.row("cls", "mean"), AttentionStat.values())


@selectors.register("InverseTransform")
class InverseTransform(ByImage):
    """Sample tokens by significance, as many as each image needs (ATS, Fayyaz et al., ECCV 2022).

    Significance ``S_j = Σ_h A[h,CLS,j]·‖V_j‖``, the heads of V_j concatenated, sums to 1 over the
    image tokens. Sorted in ascending order, it is accumulated and scaled to [0, 1]. N0 levels,
    evenly spaced from the smallest positive value to 1, each select the nearest token; a token
    selected several times is kept once. If a few tokens have all the significance, few are kept.
    Ties go to the lower position. In an image without any significance all tokens are equal.

    As in the paper, rows of the attention are sampled: all keys and values still take part in this
    block. The images of a batch are padded to the longest with tokens of size 0.

    Args:
        max_tokens: maximum number of tokens kept (the paper's K, the number of levels); one number,
            or one for each of `layers`; None, or anything above N0, for N0.
        layers: the blocks, ascending; None for all from the first quarter of the depth on (3-11
            of 12).

    Shapes:
        returns: ``keep (b, k)``, in order and padded, with k the maximum over the images.
    """

    traits = Traits(needs_cls=True)
    version = 2

    max_tokens: Size | Sizes | None = None
    layers: Blocks | None = None

    def __post_init__(self) -> None:
        check_each(self, "max_tokens", self.layers)

    requires = _STATS

    def adaptive(self, layer: int, depth: int) -> bool:
        return layer >= depth // 4 if self.layers is None else layer in self.layers

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        # The norms of the values.
        return float(tokens * info.num_heads * info.head_dim)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        row, values = (attention[stat] for stat in _STATS)
        lengths = values[:, :, state.num_prefix :].to(at_least_fp32(values.dtype))
        score = row.to(lengths.dtype) * lengths.square().sum(dim=(1, 3)).sqrt()
        alive = living(state)
        chosen = sampled(score.detach(), alive, self._levels(state))
        return padded_selection(torch.zeros_like(chosen, dtype=torch.long), chosen, alive)

    def _levels(self, state: TokenState) -> int:
        most = self.max_tokens
        if isinstance(most, tuple):
            most = most[(self.layers or ()).index(state.layer)]
        return state.num_patches if most is None else min(most, state.num_patches)


def sampled(
    score: Float[Tensor, "b n"], alive: Bool[Tensor, "b n"], levels: int
) -> Bool[Tensor, "b n"]:
    """The tokens selected by some level: at least one if any remains, and no padding.

    Args:
        score: non-negative, of any scale.
        alive: False for padding.
        levels: how many.
    """
    n = score.shape[1]
    score = torch.where(alive, score, 0)
    # Padding sorts after all tokens, so it does not change the sums.
    order = torch.where(alive, score, torch.inf).sort(dim=1, stable=True).indices
    number = alive.sum(dim=1, keepdim=True).clamp_min(1)
    first = torch.arange(n, device=score.device) < number
    share = torch.where(score.sum(dim=1, keepdim=True) > 0, score, alive.to(score.dtype))
    total = share.gather(1, order).cumsum(dim=1)
    total = total - total[:, :1]
    # With a single token there is nothing to scale.
    height = total.gather(1, number - 1)
    total = torch.where(height > 0, total / height, first.to(total.dtype))
    total = torch.where(first, total, torch.inf)
    low = torch.where(total > 0, total, torch.inf).amin(dim=1, keepdim=True).clamp_max(1)
    step = torch.linspace(1, 0, levels, dtype=score.dtype, device=score.device)
    wanted = low + (1 - low) * step
    above = torch.searchsorted(total, wanted).minimum(number - 1)
    below = (above - 1).clamp_min(0)
    nearer = wanted - total.gather(1, below) <= total.gather(1, above) - wanted
    place = order.gather(1, torch.where(nearer, below, above))
    return torch.zeros_like(alive).scatter(1, place, True) & alive
