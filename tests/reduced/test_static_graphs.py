"""A reduced model as one graph: torch.compile without a break, torch.export for any batch."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import tokenred as tr
from tests.backbones.forms import vit
from tests.static_recipes import static_recipes

METHODS = {
    "nothing": tr.strategy("gtp", P=0),
    "gtp": tr.strategy("gtp", P=2, M=3),
    "gtp, sparse": tr.strategy("gtp", P=2, theta=0.6, graph="spatial"),
    "tome": tr.strategy("tome", r=2),
    "evit": tr.strategy("evit", layers=(0, 1), keep_rate=0.6),
    "idlevit": tr.strategy("idlevit", layers=(0, 1), keep_ratios=(0.6, 0.4)),
    "topk": tr.strategy("topk", layers=(0, 1), keep_rate=0.6),
    "random": tr.strategy("random", layers=(0, 1), keep_rate=0.6),
    "tri-level": tr.strategy("tri-level", layers=(0, 1), proportional_attention=True),
    "tri-level, as released": tr.strategy("tri-level", layers=(0, 1), reference=True),
}
METHODS["frequency, learned"] = tr.strategy("frequency", layers=(0,), learned=True)
OWN = list(METHODS)
METHODS |= static_recipes(without=METHODS)
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


INFO = tr.wrap(vit(depth=2, img_size=32), METHODS["nothing"]).info


def _learns(strategy: tr.Strategy) -> bool:
    """Whether a part has weights, on its own or as a module, or masks in training."""
    built = [part.build(INFO) for part in strategy.parts.values()]
    weights = any(isinstance(getattr(part, "network", part), nn.Module) for part in built)
    return weights or any(getattr(part, "masks", False) for part in built)


# Tests of exported files have the recipes; without weights or masks, training is as inference.
LEARNING = [name for name, strategy in METHODS.items() if _learns(strategy)]


def _by_default(one: str, others: Iterable[str] = ()) -> pytest.MarkDecorator:
    """One method by default, and others in the slow run."""
    marked = [one, *(pytest.param(m, marks=pytest.mark.slow) for m in others if m != one)]
    return pytest.mark.parametrize("reduced", marked, indirect=True)


@pytest.fixture
def reduced(request: pytest.FixtureRequest) -> Iterator[tr.ReducedViT]:
    torch._dynamo.reset()
    yield tr.wrap(vit(depth=2, img_size=32), METHODS[request.param])
    torch._dynamo.reset()


def _images(batch: int, seed: int) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def _same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduced", METHODS, indirect=True)
def test_no_value_is_read_off_the_cpu(reduced: tr.ReducedViT) -> None:
    # A tensor on "meta" has no value to read, and does not mix with one made on the CPU.
    with torch.no_grad():
        logits = reduced.to("meta")(_images(2, 0).to("meta"))
    assert logits.shape == (2, 5)


@_by_default("gtp, sparse", METHODS)
def test_compile(reduced: tr.ReducedViT) -> None:
    graphs = CompileCounter()
    compiled: Any = torch.compile(reduced, fullgraph=True, backend=graphs)
    with torch.no_grad():
        for seed in range(3):
            _same(compiled(_images(3, seed)), reduced(_images(3, seed)))
    assert graphs.frame_count == 1


@_by_default("mstm", OWN)
def test_export(reduced: tr.ReducedViT) -> None:
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(
            reduced, (_images(2, 0),), dynamic_shapes={"images": {0: batch}}, strict=False
        )
        exported = program.module()
        for size in (1, 2, 5):
            _same(exported(_images(size, size)), reduced(_images(size, size)))
    assert set(program.state_dict) == set(reduced.state_dict())


@_by_default("topk", LEARNING)
def test_compile_in_training(reduced: tr.ReducedViT) -> None:
    compiled: Any = torch.compile(reduced.train(), fullgraph=True, backend="aot_eager")
    gradients = []
    for model in (compiled, reduced):
        reduced.zero_grad()
        torch.manual_seed(0)  # some draw a decision for each token
        model(_images(3, 0)).square().sum().backward()
        gradients.append([p.grad.clone() for p in reduced.parameters() if p.grad is not None])
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@_by_default("topk")
def test_compile_in_place(reduced: tr.ReducedViT) -> None:
    base = reduced.base
    dense = base(_images(2, 0))
    reduced.compile(fullgraph=True, backend="eager")
    with torch.no_grad():
        _same(reduced(_images(2, 0)), reduced.forward(_images(2, 0)))
    # The base is not what was compiled.
    assert base._compiled_call_impl is None
    _same(base(_images(2, 0)), dense)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("reduced", METHODS, indirect=True)
def test_cuda_graph(reduced: tr.ReducedViT) -> None:
    reduced.to("cuda")
    images = _images(3, 0).to("cuda")
    with torch.no_grad():
        # Libraries set themselves up in the first runs, outside of the graph.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                reduced(images)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = reduced(images)
        for seed in (1, 2):
            images.copy_(_images(3, seed))
            graph.replay()
            torch.testing.assert_close(logits, reduced(images), rtol=1e-4, atol=1e-5)
