"""Clocks count what lies between, and leave the garbage collector as it was."""

from __future__ import annotations

import gc
import time

import pytest
import torch

from tokenred.analysis.measure.speed.clock import Marker, make_clock, no_collection

CPU = torch.device("cpu")


def test_a_clock_counts_the_call_and_passes_the_images() -> None:
    seen = []
    images = torch.zeros(1)

    def model(x: torch.Tensor) -> None:
        seen.append(x)
        time.sleep(0.02)

    assert make_clock(CPU)(model, images) >= 0.02
    assert seen == [images]


def test_marks_lie_in_order() -> None:
    marker = Marker(CPU)
    first = marker.mark()
    time.sleep(0.02)
    last = marker.mark()
    marker.settle()
    assert marker.seconds(first, last) >= 0.02
    assert marker.seconds(first, last) == -marker.seconds(last, first)


def test_collection_comes_back_also_after_an_error() -> None:
    def fail() -> None:
        with no_collection():
            assert not gc.isenabled()
            raise RuntimeError("half-way")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_another_gpu_than_the_current_one_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    second, seen = torch.device("cuda", 1), []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object = None) -> None:
            seen.append(stream)

        def synchronize(self) -> None:
            seen.append("ready")

        def elapsed_time(self, end: object) -> float:
            return 2000.0

    class Images:
        device = second

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", seen.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    assert make_clock(second)(lambda images: None, Images()) == 2.0  # type: ignore[arg-type]
    assert seen == [second, "stream of cuda:1", "stream of cuda:1", "ready"]
    marker = Marker(second)
    begin, end = marker.mark(), marker.mark()
    marker.settle()
    assert marker.seconds(begin, end) == 2.0
    assert seen[4:] == ["stream of cuda:1", "stream of cuda:1", second]
