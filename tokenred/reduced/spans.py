"""Where a forward's time goes: the block loop names its phases, a span is told of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

__all__ = ["PHASES", "Span", "no_span"]

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
