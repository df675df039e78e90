"""The contracts of scorers, selectors and fusers, and the registries of all that methods have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import PartError
from tokenred.core.part import Part
from tokenred.core.registry import Registry
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.embedding import Embedding
from tokenred.strategies.router import Router

if TYPE_CHECKING:
    from tokenred.graphs import Graph
    from tokenred.strategies.transport import Transport

__all__ = [
    "Embedding",
    "Fuser",
    "Router",
    "Scorer",
    "Selector",
    "embeddings",
    "fusers",
    "names_selector",
    "routers",
    "scorers",
    "selectors",
]


class Scorer(Part):
    """Gives every living image token a score; the highest stay.

    Shapes:
        state: `TokenState` right after the attention residual.
        attention: this block's statistics, those named in `requires`.
        returns: ``(b, n)``, higher = keep.
    """

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        """Statistics of the block's attention that the scorer reads."""
        return ()

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        """The scores."""
        raise NotImplementedError


class Selector(Part):
    """Decides which tokens stay. `TopScore` makes one of any scorer.

    Shapes:
        count: ``P``, a Python int known before the forward runs.
        returns: a `Selection` with ``keep (b, n−P)`` and ``drop (b, P)``.
    """

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        """Statistics of the block's attention that the selector reads."""
        return ()

    def limit(self, tokens: int) -> int:
        """The most tokens that may go at once, of so many living ones."""
        return tokens - 1

    @property
    def caps(self) -> bool:
        """Whether asking for more than `limit` means `limit` (else it is refused)."""
        return False

    def adaptive(self, layer: int, depth: int) -> bool:
        """Whether the images decide how many tokens go in this block.

        The schedule's count is then not looked at; the selection says with ``alive`` which of its
        places are padding, up to the longest image of the batch.
        """
        return False

    @property
    def masks(self) -> bool:
        """Whether in training `mask` stands for the reduction, so that decisions can be learned."""
        return False

    def mask(self, state: TokenState, attention: AttentionStats, count: int) -> TokenState:
        """The training form: all tokens stay, and the state says which would have gone.

        ``state.memory["mask"]``, ``(b, N)``: 1 for the prefix and for tokens that stay, 0 for those
        that would have gone, now or before. They have weight 0 in the head (`Backbone.head`).
        ``kept_share (b, S)``, for `ratio_loss`: the mean of the mask after each of the S stages so
        far. The loop notes ``target_share (b, S)`` beside it, what the schedule aims at.
        """
        raise PartError(f"{type(self).__name__} masks in training but has no mask.")

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        """The selection."""
        raise NotImplementedError


class Fuser(Part):
    """Says what becomes of the tokens that go.

    Write `transport`; it is linear in the tokens, so that a trace can record it. A subclass may
    write ``__call__`` instead: the trace then finds its weights by sending unit vectors through.

    Shapes:
        returns: a state with ``n − P + extra`` image tokens.
    """

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        """Statistics of the block's attention that the fuser reads."""
        return ()

    @property
    def extra(self) -> int:
        """Image tokens added in each reduction (EViT's fused token is 1)."""
        return 0

    @property
    def uses_graph(self) -> bool:
        """Whether the graph is read; it is not built for a fuser that does not."""
        return False

    @property
    def uses_size(self) -> bool:
        """Whether token sizes are read; they are tracked for proportional attention anyway."""
        return False

    @property
    def pads(self) -> bool:
        """Whether a selection with padding is understood (`Selector.adaptive`)."""
        return False

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        """The weights with which tokens travel."""
        raise NotImplementedError(f"{type(self).__name__} has neither transport nor __call__")

    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        """The state after the reduction."""
        return self.transport(state, selection, graph, attention).apply(state)


_HOME = "tokenred.strategies"
scorers: Registry[Scorer] = Registry("scorer", Scorer, f"{_HOME}.scorers")
selectors: Registry[Selector] = Registry("selector", Selector, f"{_HOME}.selectors")
fusers: Registry[Fuser] = Registry("fuser", Fuser, f"{_HOME}.fusers")
routers: Registry[Router] = Registry("router", Router, f"{_HOME}.routers")
embeddings: Registry[Embedding] = Registry("embedding", Embedding, f"{_HOME}.embeddings")


def names_selector(name: str) -> bool:
    """Whether a name in a scorer's place is that of a selector; scorers go first."""
    return name not in scorers and name in selectors
