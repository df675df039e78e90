"""Merging without sizes."""

from __future__ import annotations

from typing import ClassVar

import torch

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import fusers
from tokenred.strategies.fusers.merge import Merge
from tokenred.strategies.transport import Transport


@fusers.register("mean")
class Mean(Merge):
    """Merge each removed token into one kept token, as a plain mean.

    Like `Merge`, but a merged token counts as one in later means; ``Σ s`` is still conserved if
    sizes are tracked. If the selection has weights, they are used instead.

    Shapes:
        returns: ``n − P`` image tokens.
    """

    traits: ClassVar[Traits] = Traits(conserves_size=True)

    uses_size = False

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        if selection.weight is None:
            selection = replace(selection, weight=torch.ones_like(state.image[..., 0]))
        return super().transport(state, selection, graph, attention)
