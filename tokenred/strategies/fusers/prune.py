"""Pruning."""

from tokenred.attention import AttentionStats
from tokenred.core.state import Selection, TokenState
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import Fuser, fusers
from tokenred.strategies.transport import Transport


@fusers.register("prune")
class Prune(Fuser):
    """Discard removed tokens; kept tokens do not change."""

    pads = True

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        alive = selection.alive  # padding is zero
        stay = None if alive is None else alive.to(state.x.dtype)
        return Transport(selection.keep, selection.drop, stay=stay)
