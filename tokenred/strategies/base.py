"""The contracts of the parts that a method is made of, and their registries."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import QKV, AttentionStat, AttentionStats
from tokenred.core.errors import PartError
from tokenred.core.part import Part
from tokenred.core.registry import KINDS, Registry
from tokenred.core.state import Selection, TokenState

if TYPE_CHECKING:
    from tokenred.graphs.graph import Graph
    from tokenred.strategies.transport import Transport

__all__ = [
    "Embedding",
    "Fuser",
    "Router",
    "Scorer",
    "Selector",
    "embeddings",
    "fusers",
    "list_fusers",
    "list_scorers",
    "names_selector",
    "register_fuser",
    "register_scorer",
    "routers",
    "scorers",
    "selectors",
]


class Reader(Part):
    """A part that may read what a block's attention tells."""

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        """Statistics of the block's attention that the part reads."""
        return ()


class Scorer(Reader):
    """Gives every living image token a score; the highest stay.

    Shapes:
        state: `TokenState` right after the attention residual.
        attention: this block's statistics, those named in `requires`.
        returns: ``(b, n)``, higher = keep.
    """

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        """The scores."""
        scores: Tensor = self._called(state, attention)
        return scores


class Selector(Reader):
    """Decides which tokens stay. `TopScore` makes one of any scorer.

    Shapes:
        count: ``P``, a Python int known before the forward runs.
        returns: a `Selection` with ``keep (b, n−P)`` and ``drop (b, P)``.
    """

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
        return type(self).mask is not Selector.mask

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
        selection: Selection = self._called(state, attention, count)
        return selection


class Fuser(Reader):
    """Says what becomes of the tokens that go.

    Write `transport`; it is linear in the tokens, so that a trace can record it. A subclass may
    write ``__call__`` instead: the trace then finds its weights by sending unit vectors through.

    Shapes:
        returns: a state with ``n − P + extra`` image tokens.
    """

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

    @property
    def tells_transport(self) -> bool:
        """Whether `transport` says all that a reduction does."""
        kind = type(self)
        return kind.transport is not Fuser.transport and kind.__call__ is Fuser.__call__

    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        """The state after the reduction."""
        if self.network is not None and not self.tells_transport:
            after: TokenState = self._called(state, selection, graph, attention)
            return after
        return self.transport(state, selection, graph, attention).apply(state)


class Router(Reader):
    """How the tokens travel around a block: all through it, or some of them idle.

    ``split`` runs before the block and ``join`` after its MLP. Idle tokens are none of the
    block's business: they wait in ``resting``.
    """

    @property
    def preview(self) -> tuple[AttentionStat, ...]:
        """Statistics wanted before the block: keys, values or rows of logits."""
        return ()

    def active(self, layer: int, depth: int, patches: int) -> int | None:
        """How many image tokens the block processes, or None where all of them pass."""
        return None

    def with_budget(self, share: Fraction) -> Router | None:
        """The same router with about this share of the tokens active, for a `Budget`.

        The cost must not fall with the share. None where a budget is no matter of the router.
        """
        return None

    def rejoins(self, layer: int, depth: int) -> bool:
        """Whether the tokens come together after this block; else the rest waits for a later one.

        A stage of blocks opens with `split`, all its blocks name the same number of active tokens,
        and the last of them rejoins.
        """
        return True

    def watches(self, layer: int, depth: int) -> bool:
        """Whether `observe` sees this block although all tokens pass it."""
        return False

    def observe(self, state: TokenState, attention: AttentionStats) -> TokenState:
        """What the router remembers of a block, in ``state.memory``."""
        return state

    @property
    def masks(self) -> bool:
        """Whether in training all tokens pass and `mask` says which of them would have idled."""
        return type(self).mask is not Router.mask

    def mask(
        self, state: TokenState, heads: QKV, count: int
    ) -> tuple[Float[Tensor, "b N"], TokenState]:
        """The training form: 1 for active tokens, 0 for idle ones, and what losses want."""
        raise PartError(f"{type(self).__name__} masks in training but has no mask.")

    def split(
        self, state: TokenState, preview: AttentionStats, count: int
    ) -> tuple[TokenState, Mapping[str, Tensor]]:
        """The state that enters the block (``count`` image tokens), and what rests.

        ``places (b, k)`` among the latter says where the active tokens stood, prefix included, if
        they are nothing but tokens of before: what was computed of them is not computed again.
        """
        raise PartError(f"{type(self).__name__} names a number of active tokens but cannot split.")

    def join(
        self,
        before: TokenState,
        active: TokenState,
        resting: Mapping[str, Tensor],
        attention: AttentionStats,
    ) -> TokenState:
        """All tokens again, in their places of before the block."""
        raise PartError(f"{type(self).__name__} names a number of active tokens but cannot join.")


class Embedding(Part):
    """What a method adds to the tokens before the first block.

    Shapes:
        images: ``(b, ch, H, W)``.
        tokens: ``(b, N0, c)`` image tokens of the whole grid, positions included.
        returns: ``(b, N0, c)``, what is added to them.
    """

    @property
    def adds(self) -> bool:
        """Whether there is anything to add."""
        return True

    def __call__(
        self,
        images: Float[Tensor, "b ch H W"],
        tokens: Float[Tensor, "b N0 c"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "b N0 c"]:
        """What is added."""
        added: Tensor = self._called(images, tokens, grid)
        return added


scorers: Registry[Scorer] = KINDS["scorer"]
selectors: Registry[Selector] = KINDS["selector"]
fusers: Registry[Fuser] = KINDS["fuser"]
routers: Registry[Router] = KINDS["router"]
embeddings: Registry[Embedding] = KINDS["embedding"]
list_scorers, register_scorer = scorers.names, scorers.register
list_fusers, register_fuser = fusers.names, fusers.register


def names_selector(name: str) -> bool:
    """Whether a name in a scorer's place is that of a selector; scorers go first."""
    return name not in scorers and name in selectors
