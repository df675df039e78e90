"""The contracts of the parts of a method, and their registries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import QKV, AttentionStat, AttentionStats
from tokenred.core.errors import PartError, shown
from tokenred.core.part import Part
from tokenred.core.registry import KINDS, Registry
from tokenred.core.state import Selection, TokenState
from tokenred.graphs.graph import Graph
from tokenred.strategies.transport import Transport


class Reader(Part):
    """A part that may read statistics of a block's attention."""

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        """Statistics of the block's attention that the part reads."""
        return ()

    @property
    def uses_graph(self) -> bool:
        """Whether the part reads the graph; if none does, it is not built."""
        return False


def required_by(part: Reader) -> tuple[AttentionStat, ...]:
    """The statistics that a part requires, or a `PartError` if these are no tuple of them."""
    found: object = part.requires
    # A single statistic is a tuple, too: of its fields.
    if isinstance(found, tuple) and all(isinstance(stat, AttentionStat) for stat in found):
        return found
    raise PartError(
        f"{type(part).__name__}: requires must be a property that returns a tuple of AttentionStat "
        "(@property above def requires(self), and return (AttentionStat.diagonal(),) with the "
        f"comma); got {'a method' if callable(found) else shown(found)}."
    )


class Scorer(Reader):
    """Gives every remaining image token a score; the highest are kept.

    A scorer that is a single statistic needs no more than `requires`. To write one: "Write a part",
    docs/extending.md; to test it: `tokenred.testing.check_scorer`.

    Shapes:
        state: `TokenState` right after the attention residual.
        attention: this block's statistics, as declared in `requires`.
        returns: ``(b, n)``, higher = keep.
    """

    def __call__(self, state: TokenState, attention: AttentionStats) -> Float[Tensor, "b n"]:
        """The scores."""
        if self.network is None and self.requires:
            return attention[self.requires[0]]
        scores: Tensor = self._called(state, attention)
        return scores


class Selector(Reader):
    """Decides which tokens are kept. `TopScore` turns any scorer into a selector.

    To write one: "Write a part", docs/extending.md; to test it: `tokenred.testing.check_selector`.

    Shapes:
        count: ``P``, a Python int known before the forward runs.
        returns: a `Selection` with ``keep (b, n−P)`` and ``drop (b, P)``.
    """

    def limit(self, tokens: int) -> int:
        """The most tokens that can be removed at once, given the number of remaining ones."""
        return tokens - 1

    def counts(self, state: TokenState) -> Iterable[int]:
        """The numbers of tokens that it can remove from a state."""
        return range(max(0, self.limit(state.num_tokens)) + 1)

    @property
    def caps(self) -> bool:
        """Whether a request above `limit` is capped at `limit`; otherwise it is refused."""
        return False

    def adaptive(self, layer: int, depth: int) -> bool:
        """Whether the number of tokens removed in this block depends on the image.

        The schedule's count is then ignored; ``alive`` in the selection marks padding, up to the
        image with the most tokens in the batch.
        """
        return False

    def grid_after(self, layer: int, depth: int, grid: tuple[int, int]) -> tuple[int, int] | None:
        """Rows and columns of the tokens that are left after this block, if they are a rectangle.

        ``grid`` is that of all patches. ``keep`` then goes through the rectangle row by row.
        """
        return None

    calibration_passes: ClassVar[int] = 0
    """How often `tokenred.calibrate` runs the images; 0 if there is nothing to calibrate."""

    def probing(self, removed: float | None) -> Selector:
        """The selector that runs while this one is calibrated.

        Args:
            removed: tokens to remove in each block, on average over the images; None if the
                selector's own parameters determine them.
        """
        return self

    def measure(self, state: TokenState, attention: AttentionStats) -> Tensor:
        """The measurement of one batch in one block, for `calibrated`."""
        raise PartError(f"{type(self).__name__} has calibration passes but no measure.")

    def calibrated(self, found: Sequence[Sequence[Tensor]]) -> Selector:
        """The selector with its numbers, from the results of `measure` by block and batch."""
        return self

    @property
    def masks(self) -> bool:
        """Whether training replaces the reduction by `mask`, so that decisions can be learned."""
        return type(self).mask is not Selector.mask

    def mask(self, state: TokenState, attention: AttentionStats, count: int) -> TokenState:
        """The training form: all tokens stay, and the state marks those that would be removed.

        ``state.memory["mask"]``, ``(b, N)``: 1 for the prefix and for kept tokens, 0 for those that
        would be removed, now or earlier. These have weight 0 in the head (`Backbone.head`).
        ``kept_share (b, S)``, for `ratio_loss`: the mean of the mask after each of the S stages so
        far. The loop adds ``target_share (b, S)``, the schedule's target.
        """
        raise PartError(f"{type(self).__name__} masks in training but has no mask.")

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        """The selection."""
        selection: Selection = self._called(state, attention, count)
        return selection


class Fuser(Reader):
    """Decides what happens to the removed tokens.

    Implement `transport`; it is linear in the tokens, so that a trace can record it. A subclass may
    implement ``__call__`` instead: the trace then finds the weights by passing unit vectors through
    it. If the result is not linear in the tokens, set ``linear`` to False; a ``__call__`` may then
    do more than `transport`, which the trace follows. To write one: "Write a part",
    docs/extending.md; to test it: `tokenred.testing.check_fuser`.

    Shapes:
        returns: a state with ``n − P + extra`` image tokens.
    """

    linear: ClassVar[bool] = True
    replaces: ClassVar[bool] = False  # whether all image tokens are new ones, with index −1

    @property
    def extra(self) -> int:
        """Image tokens added in each reduction (EViT's fused token is 1)."""
        return 0

    def extra_in(self, layer: int, depth: int) -> int:
        """The same for a block, if it depends on the block."""
        return self.extra

    @property
    def uses_size(self) -> bool:
        """Whether token sizes are read (they are also tracked for proportional attention)."""
        return False

    @property
    def pads(self) -> bool:
        """Whether the fuser supports selections with padding (`Selector.adaptive`)."""
        return False

    def transport(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> Transport:
        """The weights of the linear map from old to new tokens."""
        raise PartError(f"{type(self).__name__} has neither transport nor __call__.")

    @property
    def tells_transport(self) -> bool:
        """Whether a trace records what `transport` says."""
        kind = type(self)
        own = kind.__call__ is not Fuser.__call__
        return kind.transport is not Fuser.transport and not (own and self.linear)

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
        made = self.transport(state, selection, graph, attention)
        if not isinstance(made, Transport):
            raise PartError(
                f"{type(self).__name__}: transport must return a tokenred.Transport, got "
                f"{shown(made)}."
            )
        return made.apply(state)


class Router(Reader):
    """Decides which tokens pass a block and which idle.

    ``split`` runs before the block and ``join`` after its MLP. The block does not see idle tokens:
    they wait in ``resting``. To write and to test one: "A router" in docs/extending.md.
    """

    @property
    def preview(self) -> tuple[AttentionStat, ...]:
        """Statistics needed before the block: keys, values or rows of logits."""
        return ()

    def active(self, layer: int, depth: int, patches: int) -> int | None:
        """The number of image tokens that the block processes, or None if all pass."""
        return None

    def with_budget(self, share: Fraction) -> Router | None:
        """The same router with about this share of the tokens active, for a `Budget`.

        The cost must not decrease with the share. None if the router has no budget.
        """
        return None

    def rejoins(self, layer: int, depth: int) -> bool:
        """Whether the tokens are joined after this block; otherwise idle ones keep waiting.

        A stage of blocks starts with `split`, all its blocks have the same number of active tokens,
        and the last one joins.
        """
        return True

    def watches(self, layer: int, depth: int) -> bool:
        """Whether `observe` is called for this block although all tokens pass it."""
        return False

    def observe(self, state: TokenState, attention: AttentionStats) -> TokenState:
        """Store what the router needs from a block in ``state.memory``."""
        return state

    @property
    def masks(self) -> bool:
        """Whether in training all tokens pass and `mask` marks those that would idle."""
        return type(self).mask is not Router.mask

    def mask(
        self, state: TokenState, qkv: QKV, count: int
    ) -> tuple[Float[Tensor, "b N"], TokenState]:
        """The training form: 1 for active tokens, 0 for idle ones, and the inputs of losses."""
        raise PartError(f"{type(self).__name__} masks in training but has no mask.")

    def split(
        self, state: TokenState, preview: AttentionStats, count: int
    ) -> tuple[TokenState, Mapping[str, Tensor]]:
        """The state that enters the block (``count`` image tokens), and what is set aside.

        ``places (b, k)`` in the latter says where the active tokens were, prefix included, if they
        are unchanged tokens: what was computed for them is then reused.
        """
        raise PartError(f"{type(self).__name__} names a number of active tokens but cannot split.")

    def join(
        self,
        before: TokenState,
        active: TokenState,
        resting: Mapping[str, Tensor],
        attention: AttentionStats,
    ) -> TokenState:
        """All tokens again, in their positions before the block."""
        raise PartError(f"{type(self).__name__} names a number of active tokens but cannot join.")


class Embedding(Part):
    """A term that a method adds to the tokens before the first block.

    To write one, start from tokenred/strategies/embeddings/multi_scale.py.

    Shapes:
        images: ``(b, ch, H, W)``.
        tokens: ``(b, N0, c)`` image tokens of the full grid, positions included.
        returns: ``(b, N0, c)``, the term to add.
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
    """Whether a name given as scorer is that of a selector; scorers take precedence."""
    return name not in scorers and name in selectors
