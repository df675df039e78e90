"""EViT's fused token."""

import torch

from tokenred.attention import AttentionStats
from tokenred.core.errors import PartError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import Fuser, fusers
from tokenred.strategies.transport import Transport


@fusers.register("fused_token")
class FusedToken(Fuser):
    """Fuse all removed tokens into one, weighted by their scores (EViT, Liang et al., ICLR 2022).

    ``x_f = Σ_dropped a_i x_i`` with unnormalised weights, appended last; its size is the sum of
    theirs. It represents no single patch, and is treated like any other token afterwards.

    Shapes:
        returns: ``n − P + 1`` image tokens.
    """

    traits = Traits(conserves_size=True)
    version = 2

    extra = 1

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens - removed + 1) * removed * info.width)

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        if selection.score is None:
            raise PartError(
                "FusedToken weights tokens by the scores of the selection, but this selector "
                "returns none. Use it with a scorer."
            )
        weight = selection.score.gather(1, selection.drop)[:, None, :]
        return Transport(
            selection.keep, selection.drop, move=weight, size_move=torch.ones_like(weight), extra=1
        )
