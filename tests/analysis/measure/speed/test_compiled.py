"""Dense model and candidates are compiled alike, as many as there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import benchmark
from tokenred.analysis.measure.speed.compiled import check_compile, runnable, settle
from tokenred.core.errors import ConfigError
from tokenred.strategies.strategy import Strategy

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


def test_not_compiled(tiny: nn.Module) -> None:
    with runnable({1: tiny}, False) as runs:
        assert runs == {1: tiny}


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
    with torch.no_grad(), runnable(models, "reduce-overhead") as runs:
        settle(runs, IMAGES)
        for key, run in runs.items():
            torch.testing.assert_close(run(IMAGES), models[key](IMAGES))
    assert torch._dynamo.config.recompile_limit == limit
    options = {"fullgraph": True, "dynamic": False, "mode": "reduce-overhead"}
    assert asked == [options] * 9


def test_benchmark_compiles_dense_and_candidates_once(
    tiny: nn.Module, asked: list[dict[str, Any]]
) -> None:
    fast = {"a": tr.wrap(tiny, Strategy("Random", schedule=2)), "b": tr.wrap(tiny, "tome")}
    found = benchmark(fast, batch_size=2, pairs=2, warmup=0, compile=True, progress=False)
    assert len(asked) == 3
    assert found.compile is True
    assert ", compiled" in str(found)
    assert found.frame()["compile"].tolist() == ["true", "true"]


def test_refused() -> None:
    with pytest.raises(ConfigError, match="reduce-overhead"):
        check_compile("fast")
    check_compile("max-autotune")

    def broken(images: torch.Tensor) -> object:
        raise torch._dynamo.exc.Unsupported("a graph break")

    with pytest.raises(ConfigError, match=r"torch\.compile failed .*a graph break"):
        settle({0: broken}, IMAGES)
