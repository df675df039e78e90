"""What one forward carries from block to block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from tokenred.attention import AttentionStats, Scratch
from tokenred.core.state import TokenState
from tokenred.reduced.trace import Recorder

__all__ = ["Forward", "LoopState"]


@dataclass(frozen=True, eq=False)
class Forward:
    """One pass through the blocks.

    Attributes:
        recorder: told of all that happens, or None.
        scratch: buffers for attention; None where gradients or a compiler need fresh ones.
        pads: whether images may keep different numbers of tokens.
    """

    recorder: Recorder | None = None
    scratch: Scratch | None = None
    pads: bool = False


@dataclass(frozen=True, eq=False)
class LoopState:
    """Tokens between two blocks: those that travel, and what waits for them to come back.

    Attributes:
        state: the tokens that travel, all of them as a rule.
        before: all tokens as they were when some began to idle, or None.
        resting: what the router set aside.
        attention: what it wanted to know of the last block.
    """

    state: TokenState
    before: TokenState | None = None
    resting: Mapping[str, Tensor] = field(default_factory=dict)
    attention: AttentionStats | None = None
