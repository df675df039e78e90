"""Clocks count what lies between; dense model and candidates are compiled alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import benchmark
from tokenred.analysis.measure.clock import Clock, no_collection, runnable
from tokenred.core.errors import ConfigError

CPU = torch.device("cpu")


def test_a_clock_counts_the_call_and_passes_the_images() -> None:
    seen = []
    images = torch.zeros(1)

    def model(x: torch.Tensor) -> None:
        seen.append(x)
        time.sleep(0.02)

    assert Clock(CPU)(model, images) >= 0.02
    assert seen == [images]


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
    monkeypatch.setattr(torch.accelerator, "synchronize", seen.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    assert Clock(second)(lambda images: None, Images()) == 2.0  # type: ignore[arg-type]
    assert seen == [second, "stream of cuda:1", "stream of cuda:1", "ready"]


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3
    ).eval()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What torch.compile is asked for; it stops before it makes machine code."""
    real, calls = torch.compile, []

    def quick(model: nn.Module, **options: Any) -> Any:
        calls.append(options)
        return real(model, fullgraph=True, dynamic=False, backend="eager")

    monkeypatch.setattr(torch, "compile", quick)
    torch._dynamo.reset()
    yield calls
    torch._dynamo.reset()


class Rolled(nn.Module):
    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.roll(self.by, dims=-1)


@torch._dynamo.config.patch(recompile_limit=8)  # whatever ran before in this process
def test_more_models_than_dynamo_compiles_of_one_code(asked: list[dict[str, Any]]) -> None:
    models = {by: Rolled(by) for by in range(9)}
    limit = torch._dynamo.config.recompile_limit
    assert len(models) > limit
    with torch.no_grad(), runnable(models, "reduce-overhead", IMAGES) as runs:
        for key, run in runs.items():
            torch.testing.assert_close(run(IMAGES), models[key](IMAGES))
    assert torch._dynamo.config.recompile_limit == limit
    options = {"fullgraph": True, "dynamic": False, "mode": "reduce-overhead"}
    assert asked == [options] * 9


def test_benchmark_compiles_dense_and_candidates_once(
    tiny: nn.Module, asked: list[dict[str, Any]]
) -> None:
    fast = {"a": tr.wrap(tiny, "random"), "b": tr.wrap(tiny, "tome")}
    found = benchmark(fast, batch_size=2, pairs=2, warmup=0, compile=True, progress=False)
    assert len(asked) == 3
    assert found.compile is True
    assert ", compiled" in str(found)
    assert found.frame()["compile"].tolist() == ["true", "true"]


class Broken(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return images


@pytest.mark.usefixtures("asked")
def test_refused() -> None:
    with (
        pytest.raises(ConfigError, match=r"torch\.compile failed .*omit compile"),
        runnable({0: Broken()}, True, IMAGES),
    ):
        raise AssertionError("nothing was refused")
