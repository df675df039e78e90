"""Two fused calls answer as the map does, and better in low precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import tokenred.attention.two_calls as two_calls
from tokenred.attention import QKV, AttentionSpec, AttentionStat, PlainEngine, ScoreMod
from tokenred.attention.two_calls import TwoCallsEngine
from tokenred.core.state import TokenState

KINDS = (
    AttentionStat.diagonal("max"),
    AttentionStat.diagonal("mean"),
    AttentionStat.column_sum("max"),
    AttentionStat.column_sum("mean"),
    AttentionStat.column_sum("mean", exclude_self=False),
    AttentionStat.kept(),
)
FREE = (AttentionStat.keys(), AttentionStat.values())
ROWS = (
    AttentionStat.row("cls", "max"),
    AttentionStat.row(0, "mean"),
    AttentionStat.logits_row("cls"),
)


def needs_of(prefix: int) -> tuple[AttentionStat, ...]:
    return (*KINDS, *FREE, *(ROWS if prefix else ()))


def case(
    n: int,
    *,
    b: int = 2,
    h: int = 3,
    d: int = 8,
    p: int = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[QKV, torch.Tensor, TokenState]:
    """As in a block: three views into one projection; biases from sizes, one token dead."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(b, n, 3, h, d, generator=generator, dtype=torch.float64)
    q, k, v = qkv.to(dtype).permute(2, 0, 3, 1, 4).unbind(0)
    bias = torch.randint(1, 40, (b, n), generator=generator).double().log()
    if n > 1:
        bias[:, -1] = -torch.inf
    x, index = torch.zeros(b, n, h * d), torch.arange(n - p).expand(b, -1)
    state = TokenState(x, index, p, (1, n - p), cls_index=0 if p else None)
    return QKV(q * 2, k, v, d**-0.5), bias.to(torch.promote_types(dtype, torch.float32)), state


def doubled(heads: QKV) -> QKV:
    return QKV(heads.q.double(), heads.k.double(), heads.v.double(), heads.scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("n", "p", "d"),
    [(1, 0, 8), (2, 1, 5), (7, 5, 8), (17, 0, 3), (64, 1, 16), (197, 1, 64), (300, 5, 20)],
)
def test_agrees_with_the_map(
    n: int, p: int, d: int, biased: bool, theta: float, dtype: torch.dtype
) -> None:
    heads, bias, state = case(n, p=p, d=d, dtype=dtype)
    request = AttentionSpec(needs_of(p), key_bias=bias if biased else None, theta=theta)
    engine = TwoCallsEngine()
    assert engine.supports(heads, request)
    out, found = engine(heads, request, state)
    expected, stats = PlainEngine()(heads, request, state)
    small = 1e-5 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(out, expected, rtol=small, atol=small)
    assert found.values.keys() == stats.values.keys()
    for need in request.requires:
        torch.testing.assert_close(found[need], stats[need], rtol=small, atol=small / 10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40),
    p=st.integers(0, 5),
    d=st.integers(1, 24),
    scale=st.floats(0.05, 2),
    seed=st.integers(0, 2**16),
    theta=st.sampled_from([1.0, 1.0, 0.9, 0.2]),
    dead=st.floats(0, 0.9),
)
def test_any_shape_scale_and_bias(
    n: int, p: int, d: int, scale: float, seed: int, theta: float, dead: float
) -> None:
    heads, bias, state = case(n + p, p=p, d=d, dtype=torch.float64, seed=seed)
    heads = replace(heads, scale=scale)
    bias = torch.where(torch.rand_like(bias) < dead, -torch.inf, bias)
    bias[:, 0] = 0  # one key must live
    request = AttentionSpec(needs_of(p), key_bias=bias, theta=theta)
    out, found = TwoCallsEngine()(heads, request, state)
    expected, stats = PlainEngine()(heads, request, state)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    for need in request.requires:
        torch.testing.assert_close(found[need], stats[need], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_statistics_of_low_precision_are_those_of_its_numbers(
    dtype: torch.dtype, biased: bool, theta: float
) -> None:
    heads, bias, state = case(197, d=64, dtype=dtype)
    request = AttentionSpec((*KINDS, *ROWS[:2]), key_bias=bias if biased else None, theta=theta)
    out, found = TwoCallsEngine()(heads, request, state)
    rough, plain = PlainEngine()(heads, request, state)
    assert plain[KINDS[0]].dtype == torch.float32
    truth, stats = PlainEngine()(doubled(heads), request, state)
    assert out.dtype == dtype
    assert (out - truth).abs().max() < 1.2 * (rough - truth).abs().max()
    for need in request.requires:
        assert found[need].dtype == torch.float32
        size = stats[need].abs().clamp(min=1e-6)
        error = ((found[need] - stats[need]).abs() / size).quantile(0.99)
        assert error < 2e-4
        assert ((plain[need] - stats[need]).abs() / size).quantile(0.99) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_dead_keys_get_nothing_and_give_nothing(dtype: torch.dtype, theta: float) -> None:
    heads, bias, state = case(9, p=2, dtype=dtype)
    bias[:, 3:6] = -torch.inf
    requires = (
        AttentionStat.diagonal(),
        AttentionStat.column_sum(exclude_self=False),
        AttentionStat.row("cls"),
    )
    request = AttentionSpec(requires, key_bias=bias, theta=theta)
    out, stats = TwoCallsEngine()(heads, request, state)
    for need in requires:
        assert bool(stats[need].isfinite().all())
        assert not stats[need][:, 1:4].any()
    dead = torch.isneginf(bias)[:, None, :, None]
    changed = replace(
        heads,
        k=torch.where(dead, 50.0, heads.k),
        v=torch.where(dead, 99.0, heads.v),
    )
    assert torch.equal(TwoCallsEngine()(changed, request, state)[0], out)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 0.125, 0.0625, 0.3])
def test_a_folded_bias_is_good_to_a_hundred_thousandth(dtype: torch.dtype, scale: float) -> None:
    q, k = torch.zeros(1, 1, 1, 4, dtype=dtype), torch.zeros(1, 1, 2000, 4, dtype=dtype)
    bias = torch.linspace(-60, 20, 2000).to(torch.promote_types(dtype, torch.float32))
    folded_q, folded_k = two_calls._fold(q, k, bias.expand(1, 1, -1), scale)
    assert folded_q.dtype == folded_k.dtype == dtype
    logits = (folded_q.double() * folded_k.double()).sum(dim=-1) * scale
    torch.testing.assert_close(logits[0, 0], bias.double(), rtol=0, atol=1.5e-5)


@pytest.mark.parametrize("entries", [1, 2 * 49, 2 * 3 * 49, 1 << 20])
def test_chunks_of_images_change_nothing(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, bias, state = case(7, b=5)
    request = AttentionSpec(needs_of(1), key_bias=bias, theta=0.5)
    expected, stats = PlainEngine()(heads, request, state)
    monkeypatch.setattr(two_calls, "_ENTRIES", entries)
    monkeypatch.setattr(two_calls, "_BYTES", 1 << 20)
    out, found = TwoCallsEngine()(heads, request, state)
    torch.testing.assert_close(out, expected)
    for need in request.requires:
        torch.testing.assert_close(found[need], stats[need])


def test_no_map_is_allocated() -> None:
    heads, bias, state = case(400, b=1, h=2)
    with torch.profiler.profile(profile_memory=True) as profile:
        TwoCallsEngine()(heads, AttentionSpec(needs_of(1), key_bias=bias), state)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 2 * 400 * 400 * 4 / 2


class Nothing(ScoreMod):
    """Changes nothing."""

    def __call__(self, logits: torch.Tensor, state: TokenState) -> torch.Tensor:
        return logits


def test_leaves_to_others_what_it_cannot_do() -> None:
    heads, bias, _ = case(9)
    engine, request = TwoCallsEngine(), AttentionSpec(KINDS, key_bias=bias)
    assert engine.supports(heads, request)
    assert not engine.supports(heads, AttentionSpec((AttentionStat.map(),)))
    assert not engine.supports(heads, replace(request, score_mods=(Nothing(),)))
    assert not engine.supports(replace(heads, dropout=0.1), request)
    assert not engine.supports(replace(heads, q=heads.q.to("meta")), request)
    for trained in (
        replace(heads, k=heads.k.clone().requires_grad_()),
        replace(heads, v=heads.v.clone().requires_grad_()),
    ):
        assert not engine.supports(trained, request)
        with torch.no_grad():
            assert engine.supports(trained, request)
    learned = replace(request, key_bias=bias.clone().requires_grad_())
    assert not engine.supports(heads, learned)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_into_one_graph(theta: float, dtype: torch.dtype) -> None:
    requires = needs_of(1)

    def attend(heads: tuple[torch.Tensor, ...], bias: torch.Tensor, state: TokenState) -> list:
        asked = QKV(*heads, scale=0.35)
        request = AttentionSpec(requires, key_bias=bias, theta=theta)
        assert TwoCallsEngine().supports(asked, request)
        out, stats = TwoCallsEngine()(asked, request, state)
        return [out, *(stats[need] for need in requires)]

    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(attend, fullgraph=True, backend=backend)
    for seed in range(3):
        heads, bias, state = case(11, dtype=dtype, seed=seed)
        tensors = (heads.q, heads.k, heads.v)
        for found, expected in zip(
            compiled(tensors, bias, state), attend(tensors, bias, state), strict=True
        ):
            torch.testing.assert_close(found, expected)
    assert len(graphs) == 1


def test_is_not_exported() -> None:
    class Block(torch.nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            asked = TwoCallsEngine().supports(QKV(q, q, q, 1.0), AttentionSpec(KINDS))
            return q + 1 if asked else q

    if not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("this PyTorch cannot tell exporting from compiling")
    exported = torch.export.export(Block(), (torch.ones(1, 1, 2, 4),))
    assert not any("add" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("d", [64, 20])
def test_the_cuda_calls_have_the_shapes_they_should(
    dtype: torch.dtype, flash: bool, biased: bool, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_calls, "_has_flash", lambda q: flash)
    heads, bias, state = case(197, d=d, dtype=dtype)
    with FakeTensorMode():  # tensors on a GPU that need not be there
        q, k, v = (torch.empty(2, 3, 197, d, dtype=dtype, device="cuda") for _ in range(3))
        heads = replace(heads, q=q, k=k, v=v)
        bias = torch.empty(2, 197, device="cuda") if biased else None
        request = AttentionSpec(needs_of(1), key_bias=bias)
        out, found = TwoCallsEngine()(heads, request, state)
    assert out.shape == (2, 3, 197, d)
    assert out.dtype == dtype
    for need in (*KINDS[:5], *ROWS[:2]):
        assert found[need].shape == (2, 196)
        assert found[need].device.type == "cuda"
    assert found[AttentionStat.kept()].shape == (2, 3)
