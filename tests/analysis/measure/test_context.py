"""A model is as it was after it has been measured, also when that fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis.measure.context import base_of, channels_last, check_device, measured
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


def test_channels_last_comes_and_goes_also_after_an_error(digits: nn.Module) -> None:
    weight = digits.patch_embed.proj.weight
    place, values = weight.data_ptr(), weight.detach().clone()

    def fail() -> None:
        with channels_last([digits, tr.wrap(digits, "topk")]):
            assert weight.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(weight, values)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert weight.data_ptr() == place
    with channels_last([digits], wanted=False):
        assert weight.data_ptr() == place


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_shared_weights_come_home_with_the_others() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    with measured(one, torch.device("cuda")), measured(other, torch.device("cuda")):
        assert {p.device.type for p in (*one.parameters(), *other.parameters())} == {"cuda"}
    assert {p.device.type for p in (*one.parameters(), *other.parameters())} == {"cpu"}
