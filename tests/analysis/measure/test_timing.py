"""Models, shapes and images of what is timed; clocks; what is compiled."""

import gc
import time
from typing import Any

import pytest
import torch
from torch import nn

from tokenred.analysis.measure.timing import Clock, image_shape_of, no_collection, resize, runnable
from tokenred.core.errors import ConfigError, InputError
from tokenred.models import load_model


def test_models_refused() -> None:
    with pytest.raises(InputError, match="multiples of the patch 4x4, got 33x32"):
        resize(load_model("digits", pretrained=False), (33, 32))
    with pytest.raises(InputError, match="only its own image size"):
        resize(nn.Linear(2, 2), (32, 32))


def test_shapes(digits: nn.Module) -> None:
    assert image_shape_of(digits) == (3, 32, 32)
    assert image_shape_of(digits, [1, 8, 16]) == (1, 8, 16)
    for shape in [(32, 32), (3, 0, 32)]:
        with pytest.raises(InputError, match="channels, height, width"):
            image_shape_of(digits, shape)
    with pytest.raises(InputError, match="is unknown"):
        image_shape_of(nn.Linear(2, 2))


# Clocks and compilation.

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_clock_counts_the_call() -> None:
    assert Clock(torch.device("cpu"))(lambda images: time.sleep(0.02), IMAGES) >= 0.02


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_comes_back_also_after_an_error(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="half-way, False"), no_collection():
            raise RuntimeError(f"half-way, {gc.isenabled()}")
        assert gc.isenabled() == enabled
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

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.accelerator, "synchronize", seen.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    assert Clock(second)(lambda images: None, IMAGES) == 2.0
    assert seen == [second, "stream of cuda:1", "stream of cuda:1", "ready"]


class Rolled(nn.Module):
    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.by < 0:
            torch._dynamo.graph_break()
        return x.roll(self.by, dims=-1)


@torch._dynamo.config.patch(recompile_limit=4)  # whatever ran before in this process
def test_more_models_than_dynamo_compiles_of_one_code(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = torch.compile, []

    def quick(model: nn.Module, **options: Any) -> Any:
        """Stops before it makes machine code."""
        asked.append(options)
        return real(model, fullgraph=True, dynamic=False, backend="eager")

    monkeypatch.setattr(torch, "compile", quick)
    torch._dynamo.reset()
    models = {by: Rolled(by) for by in range(5)}
    with torch.no_grad(), runnable(models, "reduce-overhead", IMAGES) as runs:
        for key, run in runs.items():
            torch.testing.assert_close(run(IMAGES), models[key](IMAGES))
    assert torch._dynamo.config.recompile_limit == 4
    options = {"fullgraph": True, "dynamic": False, "mode": "reduce-overhead"}
    assert asked == [options] * 5
    with (
        pytest.raises(ConfigError, match=r"torch\.compile failed .*omit compile"),
        runnable({0: Rolled(-1)}, True, IMAGES),
    ):
        raise AssertionError("nothing was refused")
    torch._dynamo.reset()
