"""Two fused calls answer as the map does, and better in low precision."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import tokenred.attention.two_calls as two_calls
from tests.attention.cases import Case, agrees, doubled
from tokenred.attention import QKV, AttentionSpec, AttentionStat, PlainEngine
from tokenred.attention.two_calls import TwoCallsEngine
from tokenred.core.state import TokenState

ENGINE = TwoCallsEngine()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize(("n", "p", "d"), [(1, 0, 8), (7, 5, 8), (17, 0, 3), (197, 1, 64)])
def test_agrees_with_the_map(n: int, p: int, d: int, theta: float, dtype: str) -> None:
    for biased in (False, True):
        agrees(ENGINE, Case(n, d=d, b=2, h=3, p=p, dtype=dtype, biased=biased), theta)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40),
    p=st.integers(0, 5),
    d=st.integers(1, 24),
    scale=st.floats(0.05, 2),
    seed=st.integers(0, 2**16),
    theta=st.sampled_from([1.0, 0.9, 0.2]),
)
def test_any_shape_scale_and_bias(
    n: int, p: int, d: int, scale: float, seed: int, theta: float
) -> None:
    case = Case(n + p, d=d, b=2, p=p, dtype="float64", biased=True, seed=seed, scale=scale)
    agrees(ENGINE, case, theta)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_statistics_of_low_precision_are_those_of_its_numbers(dtype: str, theta: float) -> None:
    case = Case(197, d=64, b=2, h=3, dtype=dtype, biased=True)
    qkv, bias, state = case.make()
    stats = tuple(s for s in case.stats if s.kind not in ("keys", "logits_row"))
    spec = AttentionSpec(stats, key_bias=bias, theta=theta)
    out, found = ENGINE(qkv, spec, state)
    rough, _ = PlainEngine()(qkv, spec, state)
    truth, expected = PlainEngine()(doubled(qkv), spec, state)
    assert out.dtype == qkv.q.dtype
    assert (out - truth).abs().max() < 1.2 * (rough - truth).abs().max()
    for stat in stats:
        assert found[stat].dtype == torch.float32
        size = expected[stat].abs().clamp(min=1e-6)
        assert ((found[stat] - expected[stat]).abs() / size).quantile(0.99) < 2e-4


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("theta", [1.0, 0.6])
def test_dead_keys_get_nothing_and_give_nothing(dtype: str, theta: float) -> None:
    case = Case(11, p=2, dtype=dtype, biased=True)
    qkv, bias, state = case.make()
    dead = torch.isneginf(bias)
    spec = AttentionSpec(case.stats[:4], key_bias=bias, theta=theta)
    out, stats = ENGINE(qkv, spec, state)
    for stat in spec.requires:
        assert bool(stats[stat].isfinite().all())
        assert not stats[stat][dead[:, 2:]].any()
    hidden = dead[:, None, :, None]
    changed = replace(qkv, k=torch.where(hidden, 50.0, qkv.k), v=torch.where(hidden, 99.0, qkv.v))
    assert torch.equal(ENGINE(changed, spec, state)[0], out)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 0.125, 0.3])
def test_a_folded_bias_is_good_to_a_hundred_thousandth(dtype: torch.dtype, scale: float) -> None:
    q, k = torch.zeros(1, 1, 1, 4, dtype=dtype), torch.zeros(1, 1, 2000, 4, dtype=dtype)
    bias = torch.linspace(-60, 20, 2000).to(torch.promote_types(dtype, torch.float32))
    folded_q, folded_k = two_calls._fold(q, k, bias.expand(1, 1, -1), scale)
    assert folded_q.dtype == folded_k.dtype == dtype
    logits = (folded_q.double() * folded_k.double()).sum(dim=-1) * scale
    torch.testing.assert_close(logits[0, 0], bias.double(), rtol=0, atol=1.5e-5)


@pytest.mark.parametrize("entries", [1, 2 * 49, 2 * 3 * 49, 1 << 20])
def test_chunks_of_images_change_nothing(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_calls, "_ENTRIES", entries)
    monkeypatch.setattr(two_calls, "_BYTES", 1 << 20)
    agrees(ENGINE, Case(7, b=5, h=3, biased=True), 0.5)


def test_no_map_is_allocated() -> None:
    case = Case(400, d=8, biased=True)
    qkv, bias, state = case.make()
    with torch.profiler.profile(profile_memory=True) as profile:
        ENGINE(qkv, AttentionSpec(case.stats, key_bias=bias), state)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 2 * 400 * 400 * 4 / 2


@pytest.mark.parametrize(("theta", "dtype"), [(1.0, "bfloat16"), (0.6, "float32")])
def test_compiles_into_one_graph(theta: float, dtype: str) -> None:
    def attend(qkv: tuple[torch.Tensor, ...], bias: torch.Tensor, state: TokenState) -> list:
        asked, spec = QKV(*qkv, scale=0.35), AttentionSpec(Case(1).stats, bias, theta)
        assert ENGINE.supports(asked, spec)
        out, stats = ENGINE(asked, spec, state)
        return [out, *(stats[stat] for stat in spec.requires)]

    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True, backend=backend)
    for seed in range(2):
        qkv, bias, state = Case(11, dtype=dtype, biased=True, seed=seed).make()
        given_ = ((qkv.q, qkv.k, qkv.v), bias, state)
        for found, expected in zip(compiled(*given_), attend(*given_), strict=True):
            torch.testing.assert_close(found, expected)
    assert len(graphs) == 1
    torch._dynamo.reset()


def test_is_not_exported() -> None:
    class Block(torch.nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            asked = ENGINE.supports(QKV(q, q, q, 1.0), AttentionSpec(Case(1).stats))
            return q + 1 if asked else q

    if not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("this PyTorch cannot tell exporting from compiling")
    exported = torch.export.export(Block(), (torch.ones(1, 1, 2, 4),))
    assert not any("add" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("d", [64, 20])
def test_the_cuda_calls_have_the_shapes_they_should(
    dtype: torch.dtype, flash: bool, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_calls, "_has_flash", lambda q: flash)
    case = Case(197, d=d, b=2, h=3)
    qkv, _, state = case.make()
    for biased in (False, True):
        with FakeTensorMode():  # tensors on a GPU that need not be there
            q, k, v = (torch.empty(2, 3, 197, d, dtype=dtype, device="cuda") for _ in range(3))
            bias = torch.empty(2, 197, device="cuda") if biased else None
            out, found = ENGINE(replace(qkv, q=q, k=k, v=v), AttentionSpec(case.stats, bias), state)
        assert (out.shape, out.dtype) == ((2, 3, 197, d), dtype)
        for stat in case.stats[:4]:
            assert found[stat].shape == (2, 196)
            assert found[stat].device.type == "cuda"
        assert found[AttentionStat.kept()].shape == (2, 3)
