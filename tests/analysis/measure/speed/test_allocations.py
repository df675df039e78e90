"""The peak of a known program, to the byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenred.analysis.measure.speed.allocations import ResidentWatch, allocation_peak
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


def test_what_was_there_before_does_not_count() -> None:
    before = torch.zeros(10_000)
    assert allocation_peak(lambda: before.add_(before)) == 0
    assert allocation_peak(lambda: before + before) == 40_000


def test_the_result_lives_to_the_end() -> None:
    assert allocation_peak(lambda: [torch.empty(100) for _ in range(3)]) == 1200


def test_numpy_is_not_seen() -> None:
    assert allocation_peak(lambda: np.ones(10_000)) == 0


def test_other_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match="cpu or cuda"):
        allocation_peak(lambda: None, "meta")


def test_resident_memory_grows_with_what_is_touched() -> None:
    watch = ResidentWatch()
    watch.stop()
    assert watch.growth is None
    watch.start()
    held = np.ones(32 * 2**20, dtype=np.uint8)
    del held
    watch.stop()
    if watch.growth is None:
        pytest.skip("this system does not reset its high-water mark")
    assert 31 * 2**20 <= watch.growth <= 64 * 2**20
