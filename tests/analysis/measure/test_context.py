"""A model is as it was after it has been measured, also when that fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis.measure.context import base_of, check_device, measured
from tokenred.core.errors import ConfigError


def test_modes_come_back_after_an_error(digits: nn.Module) -> None:
    fast = tr.wrap(digits, "topk")
    fast.train()

    def fail() -> None:
        with measured(fast, None) as place:
            assert place == torch.device("cpu")
            assert not fast.training
            assert not digits.training
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert fast.training
    assert digits.training
    fast.eval()


def test_base_and_device(digits: nn.Module) -> None:
    assert base_of(tr.wrap(digits, "topk")) is digits
    assert base_of(digits) is digits
    assert check_device(None) is None
    assert check_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="leave it out"):
        check_device("gpu")
