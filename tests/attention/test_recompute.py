"""Training through inference engines: the gradients are those of the map."""

from collections.abc import Callable

import pytest
import torch

import tokenred.attention.recompute as recompute
from tokenred.attention import (
    QKV,
    AttentionSpec,
    AttentionStat,
    AttentionStats,
    Engine,
    PlainEngine,
    TiledEngine,
)
from tokenred.attention.recompute import Recomputed
from tokenred.attention.two_calls import TwoCallsEngine
from tokenred.core.state import TokenState

STATS = (
    AttentionStat.diagonal("max"),
    AttentionStat.column_sum("mean"),
    AttentionStat.column_sum("max", exclude_self=False),
    AttentionStat.row("cls", "mean"),
    AttentionStat.kept(),
    AttentionStat.logits_row("cls"),
    AttentionStat.keys(),
)
ENGINES = [TiledEngine(), TwoCallsEngine()]
Tensors = tuple[torch.Tensor, ...]


def case(
    b: int = 3, h: int = 2, n: int = 6, d: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[Tensors, TokenState]:
    """Queries, keys, values and bias, all of them to be trained."""
    generator = torch.Generator().manual_seed(n)
    tensors = [torch.randn(b, h, n, d, generator=generator, dtype=dtype) for _ in range(3)]
    tensors.append(torch.randn(b, n, generator=generator, dtype=dtype))
    state = TokenState(
        torch.zeros(b, n, h * d), torch.arange(n - 1).expand(b, -1), 1, (1, n - 1), cls_index=0
    )
    return tuple(tensor.requires_grad_() for tensor in tensors), state


def attend(
    engine: Engine,
    tensors: Tensors,
    state: TokenState,
    requires: tuple[AttentionStat, ...],
    theta: float,
) -> Tensors:
    *heads, bias = tensors
    asked, spec = QKV(*heads, scale=0.7), AttentionSpec(requires, key_bias=bias, theta=theta)
    assert engine.supports(asked, spec)
    out, stats = engine(asked, spec, state)
    return (out, *(stats[stat] for stat in requires if stat.kind != "kept"))


def loss(outputs: Tensors) -> torch.Tensor:
    """Every entry with a weight of its own."""
    weights = (torch.arange(t.numel(), dtype=t.dtype).view_as(t).cos() for t in outputs)
    return sum((t * weight).sum() for t, weight in zip(outputs, weights, strict=True))


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize("theta", [1.0, 0.5])
def test_gradients_are_right(engine: Engine, theta: float) -> None:
    tensors, state = case(b=2, n=4, d=2)
    requires = tuple(stat for stat in STATS if stat.kind not in ("keys", "kept"))

    def run(*tensors: torch.Tensor) -> Tensors:
        return attend(Recomputed(engine), tensors, state, requires, theta)

    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize("theta", [1.0, 0.5])
@pytest.mark.parametrize("entries", [1, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_those_of_the_plain_engine(
    engine: Engine, theta: float, entries: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompute, "_ENTRIES_CPU", entries)
    tensors, state = case(b=5, n=9, dtype=dtype)
    gradients = [
        torch.autograd.grad(loss(attend(one, tensors, state, STATS, theta)), tensors)
        for one in (Recomputed(engine), PlainEngine())
    ]
    for found, expected in zip(*gradients, strict=True):
        size = expected.abs().max()
        assert (found - expected).abs().max() <= (1e-6 if dtype == torch.float32 else 1e-13) * size


def used(name: str) -> Callable[[Tensors], torch.Tensor]:
    return {
        "output": lambda outputs: loss(outputs[:1]),
        "statistic": lambda outputs: loss(outputs[1:2]),
        "free": lambda outputs: loss(outputs[-1:]),
    }[name]


@pytest.mark.parametrize("part", ["output", "statistic", "free"])
@pytest.mark.parametrize("trained", [(0,), (3,), (1, 2, 3)])
def test_what_is_not_used_or_not_trained(part: str, trained: tuple[int, ...]) -> None:
    tensors, state = case()
    tensors = tuple(t.detach().requires_grad_(at in trained) for at, t in enumerate(tensors))
    targets = [tensors[at] for at in trained]
    gradients = []
    for engine in (Recomputed(TiledEngine()), PlainEngine()):
        value = used(part)(attend(engine, tensors, state, STATS, 1.0))
        if not value.requires_grad:
            gradients.append([torch.zeros_like(t) for t in targets])
            continue
        gradients.append(
            torch.autograd.grad(value, targets, allow_unused=True, materialize_grads=True)
        )
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


class Counting(TiledEngine):
    def __init__(self) -> None:
        self.calls: list[bool] = []

    def __call__(
        self, heads: QKV, spec: AttentionSpec, state: TokenState
    ) -> tuple[torch.Tensor, AttentionStats]:
        self.calls.append(torch.is_grad_enabled())
        return super().__call__(heads, spec, state)


def test_the_engine_runs_once_and_without_gradients() -> None:
    tensors, state = case()
    engine = Counting()
    loss(attend(Recomputed(engine), tensors, state, STATS, 1.0)).backward()
    assert engine.calls == [False]
    with torch.no_grad():
        outputs = attend(Recomputed(engine), tensors, state, STATS[:-1], 1.0)
        expected = attend(TiledEngine(), tensors, state, STATS[:-1], 1.0)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    assert not any(output.requires_grad for output in outputs)


def test_keeps_no_map_and_no_tokens() -> None:
    tensors, state = case(b=2, h=3, n=40)
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attend(Recomputed(TiledEngine()), tensors, state, STATS[:5], 1.0)
    assert kept
    assert all(tensor.numel() <= tensors[0].numel() for tensor in kept)
    assert not any(tensor.data_ptr() == state.x.data_ptr() for tensor in kept)


def test_under_autocast_it_trains_as_the_plain_engine_does() -> None:
    tensors, state = case(n=33, d=16, dtype=torch.bfloat16)
    requires, gradients = STATS[:4], []
    for engine in (Recomputed(TwoCallsEngine()), PlainEngine()):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(tuple(t.float() for t in attend(engine, tensors, state, requires, 1.0)))
        gradients.append(torch.autograd.grad(value, tensors))
    for found, expected in zip(*gradients, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


def test_a_second_derivative_is_refused() -> None:
    tensors, state = case()
    value = loss(attend(Recomputed(TiledEngine()), tensors, state, STATS[:1], 1.0)) ** 2
    (first,) = torch.autograd.grad(value, tensors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_compiled_training_is_left_to_others() -> None:
    def asked(q: torch.Tensor) -> bool:
        return Recomputed(TwoCallsEngine()).supports(QKV(q, q, q, 1.0), AttentionSpec(STATS[:1]))

    torch._dynamo.reset()
    compiled = torch.compile(asked, fullgraph=True, backend="eager")
    (q, *_), _ = case()
    assert asked(q)
    assert not compiled(q)
    with torch.no_grad():
        assert compiled(q)
    torch._dynamo.reset()
