"""The base of soft assignments, which replace all image tokens by new ones."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.errors import PartError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import at_least_fp32, full_precision
from tokenred.core.values import Blocks
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import Fuser
from tokenred.strategies.schedule import layers_of
from tokenred.strategies.transport import Transport


class SoftFuser(Fuser):
    """New tokens are weighted sums of all old ones; their index is −1.

    A subclass implements `stage`, the weights for one block: a module that maps ``(b, n, c)``
    tokens and K to the assignment ``(b, K, n)`` and the ``(b, n, c)`` tokens to be mixed.

    The number of weights fits the number of tokens that the schedule keeps.

    Args:
        layers: blocks with their own weights, ascending; None for the quarters of the depth.
    """

    traits = Traits(equivariant=False)
    linear = False
    replaces = True

    layers: Blocks | Literal["all"] | None = None

    def stage(self, width: int, clusters: int) -> nn.Module:
        """The weights for one block."""
        raise NotImplementedError

    def build(self, info: ModelInfo) -> nn.Module:
        stages, alive = [], info.num_patches
        for layer in range(info.depth):
            alive -= info.counts[layer] if info.counts else 0
            if layer in layers_of(self, self.layers, info.depth):
                stages.append(self.stage(info.width, alive))
        return nn.ModuleList(stages)

    def mixed(
        self, state: TokenState, selection: Selection
    ) -> tuple[Float[Tensor, "b K n"], Float[Tensor, "b n c"]]:
        """The assignment, and the tokens to be mixed."""
        if not isinstance(self.network, nn.ModuleList):
            raise PartError(f"{type(self).__name__} has no weights; use it in a wrapped model.")
        stages = layers_of(self, self.layers, state.depth)
        stage = self.network[max(0, sum(start <= state.layer for start in stages) - 1)]
        x = state.image.to(at_least_fp32(state.x.dtype))
        with full_precision(x.device):
            weights, tokens = stage(x, selection.keep.shape[1])
        if weights.shape[1] != selection.keep.shape[1]:
            raise PartError(
                f"{self!r} has weights for {weights.shape[1]} tokens in block {state.layer}, but "
                f"the schedule keeps {selection.keep.shape[1]}."
            )
        return weights, tokens

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        return _all_new(self.mixed(state, selection)[0])

    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        weights, tokens = self.mixed(state, selection)
        x = torch.cat((state.prefix, tokens.to(state.x.dtype)), dim=1)
        return _all_new(weights).apply(replace(state, x=x))


def _all_new(weights: Float[Tensor, "b K n"]) -> Transport:
    b, new, n = weights.shape
    places = torch.arange(n, device=weights.device).expand(b, n)
    return Transport(places[:, :0], places, move=weights, extra=new)
