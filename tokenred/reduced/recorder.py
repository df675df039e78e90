"""Who looks on while the blocks run: a span is told of every phase, a recorder of the tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.state import Selection, TokenState
from tokenred.strategies.base import Fuser

__all__ = ["PHASES", "Recorder", "Span", "no_span"]

Span: TypeAlias = Callable[[str], AbstractContextManager[None]]

PHASES = (
    "embed",  # patches, positions, the norm before the blocks
    "graph",
    "block",  # a block that nothing looks into
    "heads",  # norm, queries, keys, values
    "attention",  # with its statistics
    "project",  # output projection and residual; a parallel block's MLP
    "select",
    "fuse",
    "mlp",
    "head",  # norm, pooling, classifier
)
"""The phases of a forward, in order. A router's choice is in "select", its return in "fuse"."""


def no_span(phase: str) -> AbstractContextManager[None]:
    """Nobody looks."""
    return nullcontext()


class Recorder:
    """Is told what becomes of the tokens, and by itself keeps nothing.

    Attributes:
        attention: the attention map that `attended` is to be given of every block, or None.
        wants_share: whether `sparsified` is to be called.
    """

    attention: AttentionStat | None = None
    wants_share = False

    def reduction(
        self, before: TokenState, selection: Selection, attention: AttentionStats, fuser: Fuser
    ) -> None:
        """Tokens went: from which state, which, and by which fuser."""

    def attended(self, state: TokenState, attention: Tensor) -> None:
        """The map of a block, whose rows and columns are the tokens of ``state``."""

    def sparsified(self, error: Float[Tensor, "b h"]) -> None:
        """By how much the share of attention entries kept misses θ."""

    def block(self, state: TokenState) -> None:
        """A block has ended."""
