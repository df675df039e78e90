from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from tokenred.core.errors import ConfigError, MissingExtraError
from tokenred.training.devices import Accelerated, OneDevice, pick_device


def test_one_process_needs_no_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert type(pick_device("no", "cpu")) is OneDevice
    with pytest.raises(MissingExtraError, match=r"tokenred\[train\]"):
        pick_device("bf16", "cpu")
    with pytest.raises(ConfigError, match="device"):
        OneDevice("abacus")


def test_accelerate_computes_in_bf16() -> None:
    pytest.importorskip("accelerate")
    device = Accelerated("bf16", "cpu")
    layer = nn.Linear(4, 4)
    module, optimizer = device.prepare(layer, torch.optim.SGD(layer.parameters(), lr=1.0))
    before = layer.weight.detach().clone()
    with device.autocast():
        # accelerate hands back float32, of numbers that bfloat16 holds.
        out = layer(torch.full((1, 4), 1 / 3))
    assert torch.equal(out, out.bfloat16().float())
    device.backward(module(torch.ones(1, 4)).sum())
    device.clip(list(layer.parameters()), 0.5)
    optimizer.step()
    assert not torch.equal(layer.weight, before)
    assert (layer.weight - before).norm() <= 0.5 + 1e-5
    assert (device.rank, device.count) == (0, 1)
    assert device.total(torch.ones(2)).tolist() == [1, 1]
