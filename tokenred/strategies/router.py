"""The contract of routers."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import QKV, AttentionStat, AttentionStats
from tokenred.core.errors import PartError
from tokenred.core.part import Part
from tokenred.core.state import TokenState

__all__ = ["Router"]


class Router(Part):
    """How the tokens travel around a block: all through it, or some of them idle.

    ``split`` runs before the block and ``join`` after its MLP. Idle tokens are none of the
    block's business: they wait in ``resting``.
    """

    @property
    def preview(self) -> tuple[AttentionStat, ...]:
        """Statistics wanted before the block: keys, values or rows of logits."""
        return ()

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        """Statistics of the block's attention that `join` reads."""
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
        return False

    def mask(
        self, state: TokenState, heads: QKV, count: int
    ) -> tuple[Float[Tensor, "b N"], TokenState]:
        """The training form: 1 for active tokens, 0 for idle ones, and what losses want."""
        raise PartError(f"{type(self).__name__} masks in training but has no mask.")

    def split(
        self, state: TokenState, preview: AttentionStats, count: int
    ) -> tuple[TokenState, Mapping[str, Tensor]]:
        """The state that enters the block (``count`` image tokens), and what rests."""
        raise PartError(f"{type(self).__name__} names a number of active tokens but cannot split.")

    def places(self, resting: Mapping[str, Tensor]) -> Int[Tensor, "b k"] | None:
        """Where the active tokens stood, prefix included, if they are nothing but tokens of before.

        What the preview computed of them is then not computed again.
        """
        return None

    def join(
        self,
        before: TokenState,
        active: TokenState,
        resting: Mapping[str, Tensor],
        attention: AttentionStats,
    ) -> TokenState:
        """All tokens again, in their places of before the block."""
        raise PartError(f"{type(self).__name__} names a number of active tokens but cannot join.")
