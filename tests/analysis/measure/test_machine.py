"""Facts about the machine; a model is as it was after a measurement, also after one that fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis import describe_machine, weights_digest
from tokenred.analysis.measure.machine import (
    base_of,
    channels_last,
    check_device,
    measured,
    running,
)
from tokenred.core.errors import ConfigError


def test_machine() -> None:
    facts = describe_machine()
    assert facts["tokenred"] == tr.__version__
    assert facts["device"] == "cpu"
    assert facts["processor"]
    assert int(facts["cores"]) >= 1


def test_digest_hangs_on_values_names_and_types(digits: nn.Module) -> None:
    assert weights_digest(digits) == weights_digest(tr.models.load_model("digits"))
    layer = nn.Linear(2, 2)
    seen = {weights_digest(layer), weights_digest(nn.Sequential(layer))}
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6 + layer.weight[0, 0].abs()
    seen |= {weights_digest(layer), weights_digest(layer.to(torch.bfloat16))}
    assert len(seen) == 4
    assert len(weights_digest(digits)) == 16


def test_base_and_device(digits: nn.Module) -> None:
    assert base_of(tr.wrap(digits, "topk")) is digits
    assert base_of(digits) is digits
    assert check_device(None) is None
    assert check_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="omit it"):
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


def test_all_comes_back_after_an_error(digits: nn.Module) -> None:
    fast = tr.wrap(digits, "topk")
    threads = torch.get_num_threads()
    digits.train()
    digits.blocks[0].eval()

    def fail() -> None:
        with running([fast], "cpu", amp=torch.bfloat16, threads=threads + 1) as place:
            assert place == torch.device("cpu")
            assert not any((fast.training, digits.training, torch.is_grad_enabled()))
            assert torch.get_num_threads() == threads + 1
            assert fast(torch.zeros(1, 3, 32, 32)).dtype == torch.bfloat16
            raise RuntimeError("half-way")

    try:
        before = {name: module.training for name, module in digits.named_modules()}
        with pytest.raises(RuntimeError, match="half-way"):
            fail()
        assert before == {name: module.training for name, module in digits.named_modules()}
        assert torch.get_num_threads() == threads
        assert torch.is_grad_enabled()
    finally:
        digits.eval()


def test_refused(digits: nn.Module) -> None:
    for wrong in ({"threads": 0}, {"threads": True}, {"amp": torch.int8}):
        with (
            pytest.raises(ConfigError, match=next(iter(wrong))),
            running([digits], None, **wrong),
        ):
            raise AssertionError("nothing was refused")
