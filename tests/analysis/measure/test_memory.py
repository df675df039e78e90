"""The peak of a known program to the byte, and of a forward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import peak_memory
from tokenred.analysis.measure.memory import allocation_peak
from tokenred.core.errors import ConfigError


def test_to_the_byte() -> None:
    def program() -> torch.Tensor:
        a = torch.empty(1000)  # 4000 held
        b = torch.empty(250, dtype=torch.float64)  # 6000
        del a  # 2000
        c = torch.empty(500)  # 4000
        b.add_(b)  # nothing
        del b  # 2000
        d = torch.empty(1001)  # 6004: the peak
        del d
        return c

    assert allocation_peak(program) == 6004
    # What was there before does not count.
    before = torch.zeros(10_000)
    assert allocation_peak(lambda: before.add_(before)) == 0
    with pytest.raises(ConfigError, match="cpu or cuda"):
        allocation_peak(lambda: None, "meta")


def test_a_forward(digits: nn.Module) -> None:
    one, four = (peak_memory(digits, batch_size=b) for b in (1, 4))
    # More than the widest tensor: the MLP's hidden layer.
    assert 0 < 4 * 65 * digits.blocks[0].mlp.fc1.out_features * 4 < four
    assert one < four
    early = tr.strategy("random", keep_rate=0.2, layers=(0,)).replace(where="before_block")
    assert peak_memory(tr.wrap(digits, early), batch_size=4) < four
