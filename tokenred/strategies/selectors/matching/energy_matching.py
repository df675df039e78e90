"""PiToMe's matching."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats, mean_keys
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import product, unit_vectors
from tokenred.strategies.base import Selector, selectors

Margin = Annotated[float, Ge(-2), Le(2)]
Slope = Annotated[float, Gt(0), Le(1000)]


@selectors.register("EnergyMatching")
class EnergyMatching(Selector):
    """Merge tokens that have many similar ones, protect the others (PiToMe, NeurIPS 2024).

    The energy of a token is ``mean_j f(cos(k_i, k_j) − m_l)`` over head-averaged keys, itself
    included, with ``f(z) = z`` above 0 and ``α(eᶻ − 1)`` below. A step of kind ``energy`` takes the
    2P tokens of highest energy, ranks 0, 2, … as sources and 1, 3, … as destinations; each source
    merges into the most similar destination. A step of kind ``bsm`` alternates all tokens in this
    way, and the P most similar pairs merge.

    Args:
        split: which step a block takes: ``"bsm_first"`` (``bsm`` in the first ⌈L/2⌉ blocks, for
            DeiT), ``"bsm_last"`` (the reverse, for MAE), or one kind everywhere.
        margins: m of each block; None for ``0.75(1 − l/L)``.
        alpha: α.

    Shapes:
        returns: ``keep (b, n−P)`` = tokens that stay (``energy``: by descending energy; ``bsm``:
            sources by descending similarity), then destinations by rank; ``drop``, ``partner``
            ``(b, P)``.
    """

    traits = Traits(equivariant=False)

    split: Literal["bsm_first", "bsm_last", "energy", "bsm"] = "bsm_first"
    margins: tuple[Margin, ...] | None = None
    alpha: Slope = 1.0

    requires = (AttentionStat.keys(),)
    per_block = ("margins",)

    def limit(self, tokens: int) -> int:
        return tokens // 2

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float(tokens**2 * info.head_dim)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        metric = unit_vectors(mean_keys(attention)[:, state.num_prefix :])
        likeness = product(metric, metric.transpose(-2, -1))
        above = likeness - self._margin(state)
        energy = torch.where(above > 0, above, self.alpha * above.expm1()).mean(dim=-1)
        order = energy.sort(dim=1, descending=True, stable=True).indices
        first_half = state.layer < (state.depth + 1) // 2
        if self.split == "bsm" or (
            self.split != "energy" and first_half == (self.split == "bsm_first")
        ):
            matched, protected = order, order[:, :0]
        else:
            matched, protected = order[:, : 2 * count], order[:, 2 * count :]
        sources, targets = matched[:, ::2], matched[:, 1::2]
        if not targets.shape[1]:  # nothing to merge with, and nothing to remove
            return Selection(keep=order, drop=order[:, :0], partner=order[:, :0])
        closeness, nearest = _block(likeness, sources, targets).max(dim=-1)
        best = closeness.sort(dim=1, descending=True, stable=True).indices
        gone, rest = best[:, :count], best[:, count:]
        return Selection(
            keep=torch.cat((protected, sources.gather(1, rest), targets), dim=1),
            drop=sources.gather(1, gone),
            partner=targets.gather(1, nearest.gather(1, gone)),
        )

    def _margin(self, state: TokenState) -> float:
        if self.margins is not None:
            return self.margins[state.layer]
        return 0.75 * (1 - state.layer / state.depth)


def _block(
    likeness: Float[Tensor, "b n n"], rows: Tensor, columns: Tensor
) -> Float[Tensor, "b s t"]:
    """The similarities of some tokens to some others."""
    image = torch.arange(rows.shape[0], device=rows.device)[:, None, None]
    return likeness[image, rows[:, :, None], columns[:, None, :]]
