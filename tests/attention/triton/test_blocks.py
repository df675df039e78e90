from __future__ import annotations

import pytest
import torch

from tokenred.attention.triton.blocks import blocks_for, padded


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [1, 16, 24, 32, 48, 64, 72, 80, 96, 128, 160, 256])
def test_a_tile_is_one_that_a_gpu_can_multiply(width: int, dtype: torch.dtype) -> None:
    blocks = blocks_for(width, dtype)
    for size in (blocks.rows, blocks.cols, blocks.warps):
        assert size & (size - 1) == 0
    assert blocks.rows >= 16
    assert blocks.cols >= 16
    # q once, k and v once a stage: below what compute capability 8.6 has for a block.
    rows = blocks.rows + 2 * blocks.stages * blocks.cols
    assert rows * padded(width) * dtype.itemsize <= 100 * 1024
