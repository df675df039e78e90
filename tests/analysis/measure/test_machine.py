"""Facts about the machine; a model is as it was after a measurement, also after one that fails."""

import copy
import os
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tokenred.analysis import describe_machine, weights_digest
from tokenred.analysis.measure.machine import (
    Portions,
    channels_last,
    is_out_of_memory,
    measured,
    others_cpu_time,
    running,
)
from tokenred.core.errors import ConfigError


def test_machine() -> None:
    facts = describe_machine()
    assert (facts["tokenred"], facts["device"]) == (tr.__version__, "cpu")
    assert facts["processor"]
    assert int(facts["cores"]) >= 1


def test_digest_depends_on_values_names_and_types() -> None:
    layer = nn.Linear(2, 2)
    seen = [weights_digest(layer), weights_digest(nn.Sequential(layer))]
    assert weights_digest(copy.deepcopy(layer)) == seen[0]
    with torch.no_grad():
        layer.weight[0, 0] += 1
    seen += [weights_digest(layer), weights_digest(layer.to(torch.bfloat16))]
    assert len(set(seen)) == 4


def test_all_comes_back_after_an_error(digits: nn.Module) -> None:
    fast, weight = tr.wrap(digits, "topk"), digits.patch_embed.proj.weight
    threads, place, values = torch.get_num_threads(), weight.data_ptr(), weight.detach().clone()

    def fail() -> None:
        with (
            channels_last([digits, fast]),
            running([fast], "cpu", amp=torch.bfloat16, threads=threads + 1) as place,
        ):
            assert place == torch.device("cpu")
            assert not any((fast.training, digits.training, torch.is_grad_enabled()))
            assert torch.get_num_threads() == threads + 1
            assert fast(torch.zeros(1, 3, 32, 32)).dtype == torch.bfloat16
            assert weight.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(weight, values)
            raise RuntimeError("half-way")

    digits.train()
    digits.blocks[0].eval()
    try:
        before = {name: module.training for name, module in digits.named_modules()}
        with pytest.raises(RuntimeError, match="half-way"):
            fail()
        assert before == {name: module.training for name, module in digits.named_modules()}
    finally:
        digits.eval()
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert weight.data_ptr() == place


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_shared_weights_come_home_with_the_others() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    with measured(one, torch.device("cuda")), measured(other, torch.device("cuda")):
        assert {p.device.type for p in (*one.parameters(), *other.parameters())} == {"cuda"}
    assert {p.device.type for p in (*one.parameters(), *other.parameters())} == {"cpu"}


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": True}])
def test_refused(wrong: dict[str, object]) -> None:
    with (
        pytest.raises(ConfigError, match=next(iter(wrong))),
        running([nn.Linear(2, 2)], None, **wrong),  # type: ignore[arg-type]
    ):
        raise AssertionError("nothing was refused")


# Out of memory.

CPU = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 123 bytes. Error code 12 (Cannot allocate memory)"
)


class Small:
    """Holds so many images, and remembers how many came."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error = room, error
        self.seen: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.room:
            raise self.error
        return 2 * images


def test_halves_until_it_fits_and_stays_there() -> None:
    small, portions = Small(3, RuntimeError(CPU)), Portions()
    batch = torch.arange(10.0)[:, None]
    with pytest.warns(UserWarning, match=r"out of memory with \d+ images at once") as warned:
        torch.testing.assert_close(portions(small, batch), 2 * batch)
    # 10 fail, 5 fail, then portions of 3.
    assert small.seen == [10, 5, 3, 3, 3, 1]
    assert ["continuing with 5" in str(w.message) for w in warned] == [True, False]
    small.seen.clear()
    torch.testing.assert_close(portions(small, batch[:7]), 2 * batch[:7])
    assert small.seen == [3, 3, 1]


def test_one_image_too_big_and_other_errors_come_through() -> None:
    for error, images in ((torch.OutOfMemoryError("really"), 1), (RuntimeError("shapes"), 4)):
        with pytest.raises(RuntimeError, match=str(error)):
            Portions()(Small(0, error), torch.zeros(images, 1))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert is_out_of_memory(RuntimeError("not enough memory: you tried to allocate 5 bytes"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_cpu_time_of_others_leaves_out_our_own() -> None:
    if not Path("/proc/stat").exists():
        pytest.skip("only Linux says")
    before, start, own = others_cpu_time(), time.monotonic(), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    used = others_cpu_time() - before
    # As much as the other cores can do, with two ticks for rounding.
    cores = (os.cpu_count() or 1) * (time.monotonic() - start)
    assert -0.04 <= used <= cores - 0.2 + 0.04
