"""What parts and schedules may know about a model before it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BlockInfo:
    """The arithmetic of one block, in multiply-accumulates.

    Attributes:
        attention_per_token: linear maps around the attention, for one token (usually 4c²).
        attention_per_pair: the two products with the map, for one pair of tokens (2c).
        mlp_per_token: the MLP, for one token (2·ratio·c²).
        parallel: attention and MLP read the same input, so a reduction waits for the end.
        window: side of the square windows that attend each on its own, the grid being padded to
            whole ones; 0 for one attention over all tokens.
        attention_per_line: relative positions, for one token and one row or column of the grid.
    """

    attention_per_token: int
    attention_per_pair: int
    mlp_per_token: int
    parallel: bool = False
    window: int = 0
    attention_per_line: int = 0

    def attention_macs(self, tokens: int, grid: tuple[int, int] | None = None) -> int:
        """Of the attention over so many tokens, which are on ``grid`` where they need one."""
        pairs, lines = tokens**2, 0 if grid is None else sum(grid)
        if self.window and grid is not None:
            tokens = math.prod(math.ceil(side / self.window) * self.window for side in grid)
            pairs, lines = tokens * self.window**2, 2 * self.window
        linear = self.attention_per_token + lines * self.attention_per_line
        return tokens * linear + pairs * self.attention_per_pair


@dataclass(frozen=True)
class ModelInfo:
    """A model as the parts see it.

    Attributes:
        name: for messages.
        width: model width ``c``.
        num_heads, head_dim: ``h`` and ``d``.
        num_prefix: prefix tokens ``p`` (CLS, distillation, registers).
        cls_index: index of the class token among the prefix tokens, or None.
        grid: patches down and across ``(gh, gw)`` at the model's own image size, or None.
        num_patches: image tokens ``N0`` at the start.
        blocks: one entry a block.
        head_per_token, head_per_pair, head_fixed: multiply-accumulates of pooling and classifier,
            for one remaining token (prefix included), for a pair of them, and in all.
        channels: of the images.
        patch_size: pixels that one token stands for, (down, across), or None if unknown.
        needs_grid: whether the blocks take rectangles of tokens, and run whole.
        counts: image tokens that the strategy removes in each block, where a part is built for it;
            otherwise empty.
    """

    name: str
    width: int
    num_heads: int
    head_dim: int
    num_prefix: int
    cls_index: int | None
    grid: tuple[int, int] | None
    num_patches: int
    blocks: tuple[BlockInfo, ...]
    head_per_token: int = 0
    head_per_pair: int = 0
    head_fixed: int = 0
    channels: int = 3
    patch_size: tuple[int, int] | None = None
    needs_grid: bool = False
    counts: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        """Number of blocks ``L``."""
        return len(self.blocks)

    def at(self, grid: tuple[int, int]) -> ModelInfo:
        """The same model on another grid."""
        return replace(self, grid=grid, num_patches=grid[0] * grid[1])

    def with_tokens(self, tokens: int) -> ModelInfo:
        """The same model with fewer image tokens at the start (patch dropout)."""
        return replace(self, num_patches=tokens)
