"""MSTM's second patch embedding: what it adds, where, and what it costs."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tokenred.core.errors import ConfigError
from tokenred.strategies.embeddings import MultiScale
from tokenred.strategies.embeddings.multi_scale import SecondEmbedding
from tokenred.testing.sample import model_info


def built(factor: int = 2, patch: tuple[int, int] = (4, 3), channels: int = 2) -> SecondEmbedding:
    info = replace(model_info(8, (4, 6)), patch_size=patch, channels=channels)
    torch.manual_seed(0)
    return MultiScale(factor).build(info).double()


def awake(module: SecondEmbedding) -> SecondEmbedding:
    torch.nn.init.normal_(module.project.weight)
    torch.nn.init.normal_(module.project.bias)
    return module


def images(height: int, width: int, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)


def tokens(grid: tuple[int, int]) -> Tensor:
    return torch.zeros(2, grid[0] * grid[1], 8, dtype=torch.float64)


def test_linear_between_the_middles_of_the_larger_patches() -> None:
    module = awake(built())
    batch = images(16, 18)
    added = module(batch, tokens((4, 6)), (4, 6)).unflatten(1, (4, 6))
    coarse = module.project(module.embed(batch).permute(0, 2, 3, 1))
    assert coarse.shape == (2, 2, 3, 8)
    # A quarter and three quarters of the way, the nearest one beyond the last middle.
    rows = torch.stack([coarse[:, 0], (3 * coarse[:, 0] + coarse[:, 1]) / 4,
                        (coarse[:, 0] + 3 * coarse[:, 1]) / 4, coarse[:, 1]], dim=1)  # fmt: skip
    torch.testing.assert_close(added[:, :, 0], rows[:, :, 0])
    torch.testing.assert_close(added[:, :, 2], (rows[:, :, 0] + 3 * rows[:, :, 1]) / 4)


@pytest.mark.parametrize("factor", [2, 3])
def test_odd_grids(factor: int) -> None:
    module = awake(built(factor))
    grid = (5, 7)
    batch = images(5 * 4, 7 * 3)
    added = module(batch, tokens(grid), grid)
    assert added.shape == (2, 35, 8)
    # Filled up with black, and cut off again.
    whole = tuple(-(-side // factor) * factor for side in grid)
    filled = torch.zeros(2, 2, whole[0] * 4, whole[1] * 3, dtype=torch.float64)
    filled[:, :, :20, :21] = batch
    full = module(filled, tokens(whole), whole).unflatten(1, whole)
    torch.testing.assert_close(added, full[:, :5, :7].flatten(1, 2))


@pytest.mark.parametrize(("grid", "factor"), [((4, 6), 2), ((5, 7), 2), ((5, 7), 3)])
def test_the_cost_is_what_pytorch_counts(grid: tuple[int, int], factor: int) -> None:
    info = replace(model_info(8, grid), patch_size=(4, 3), channels=2)
    module = MultiScale(factor).build(info).double().requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(images(grid[0] * 4, grid[1] * 3)[:1], tokens(grid)[:1], grid)
    assert MultiScale(factor).learned_macs(info, (0,) * 12) == counter.get_total_flops() / 2


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="the patch size of a model drawn at random is unknown"):
        MultiScale().check(model_info(8, (4, 4)))
    with pytest.raises(ConfigError, match="needs to know the grid"):
        MultiScale().check(replace(model_info(8, (4, 4)), grid=None, patch_size=(4, 4)))
