"""ToFu's fusion."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.merge import Merge, slot_of
from tokenred.strategies.transport import Transport

Mode = Literal["prune", "mean", "mlerp", "mlerp_released"]


@fusers.register("mlerp")
class MLERP(Merge):
    """Prune early, merge late at full norm (ToFu, Kim et al., WACV 2024).

    ``mlerp``: the direction of the mean x̄ of a group, with the largest norm in it,
    ``max‖x_k‖ · x̄/‖x̄‖``. A token that receives nothing is unchanged.

    Args:
        modes: by block, ``"prune"``, ``"mean"`` (without weights), ``"mlerp"``, or
            ``"mlerp_released"``, which divides by the norm of the receiving token instead of ‖x̄‖;
            None for ``prune`` in the first half of the blocks, then ``mlerp``.
        weighted: x̄ of ``mlerp`` is weighted by size.
    """

    traits = Traits()
    linear = False
    per_block = ("modes",)

    modes: tuple[Mode, ...] | None = None
    weighted: bool = False

    def _mode(self, state: TokenState) -> Mode:
        if self.modes is not None:
            return self.modes[state.layer]
        return "prune" if 2 * state.layer < state.depth else "mlerp"

    def weights(self, state: TokenState, selection: Selection) -> Float[Tensor, "b n"] | None:
        if self.weighted and self._mode(state) == "mlerp":
            return selection.weight
        return torch.ones_like(state.image[..., 0])

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        if self._mode(state) == "prune":
            return Transport(selection.keep, selection.drop)
        return super().transport(state, selection, graph, attention)

    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        mode = self._mode(state)
        after = self.transport(state, selection, graph, attention).apply(state)
        if not mode.startswith("mlerp"):
            return after
        norms = _norms(state.image)
        own = norms.gather(1, selection.keep)
        slot = slot_of(state, selection)
        joins, slot = slot >= 0, slot.clamp_min(0)
        gone = torch.where(joins, norms.gather(1, selection.drop), 0)
        longest = own.scatter_reduce(1, slot, gone, "amax")
        receives = torch.zeros_like(own).scatter_add(1, slot, joins.to(own.dtype)) > 0
        now = own if mode == "mlerp_released" else _norms(after.image)
        scale = torch.where(receives, longest / now.clamp_min(1e-12), 1.0)
        image = after.image * scale[..., None].to(after.x.dtype)
        return replace(after, x=torch.cat((after.prefix, image), dim=1))


def _norms(x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n"]:
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=at_least_fp32(x.dtype))
    return norms
