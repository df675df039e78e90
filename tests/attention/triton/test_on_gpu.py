"""The same checks on a GPU, where there is one."""

import pytest
import torch

from tests.attention.cases import Case
from tests.attention.triton import checks, reductions
from tokenred.attention import QKV, AttentionSpec, AttentionStat, Engine
from tokenred.attention.triton import TritonEngine
from tokenred.attention.two_calls import TwoCallsEngine

if not torch.cuda.is_available():
    pytest.skip("needs a GPU that PyTorch can use through CUDA", allow_module_level=True)

CASES = [
    Case(1, p=0),
    Case(17, d=20, b=2, h=3, p=5, biased=True),
    Case(63, d=16, biased=True),
    Case(64, d=64, p=0),
    Case(65, d=128, biased=True),
    Case(130, d=256, biased=True),
    Case(197, d=64, b=3, h=6, biased=True),
    Case(257, d=80, h=3),
    Case(1100, d=64, b=2, h=2, biased=True),
    Case(130, d=32, flavour="sharp"),
    Case(130, d=32, flavour="flat", biased=True),
]
TYPES = ["float32", "bfloat16", "float16"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels(case: Case, dtype: str) -> None:
    case = case._replace(dtype=dtype)
    checks.forward(case, device="cuda")
    checks.statistics(case, device="cuda")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", [c for c in CASES if c.n <= 256 and c.d <= 128], ids=str)
def test_one_pass(case: Case, dtype: str) -> None:
    case = case._replace(dtype=dtype)
    if case.d > 64 and dtype == "float32":
        case = case._replace(n=min(case.n, 128))
    checks.one_pass(case, device="cuda")
    checks.one_pass_engine(case, device="cuda")


@pytest.mark.parametrize("theta", [0.05, 0.6, 0.97])
@pytest.mark.parametrize("slack", [0.0, 0.01])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_threshold(case: Case, dtype: str, slack: float, theta: float) -> None:
    checks.threshold(case._replace(dtype=dtype), theta, slack, device="cuda")


@pytest.mark.parametrize("theta", [0.01, 0.3, 0.6, 0.99])
@pytest.mark.parametrize(("n", "axes"), [(16, 4), (64, 16), (80, 8), (256, 32)])
def test_equal_entries_go_by_their_place(n: int, axes: int, theta: float) -> None:
    checks.ties(n, theta, axes, device="cuda")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", [17, 65, 200])
def test_sparse(n: int, dtype: str) -> None:
    checks.sparse(Case(n, d=256, dtype=dtype, biased=True), 0.6, device="cuda")


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_engine(case: Case, dtype: str, theta: float, fast: bool) -> None:
    checks.engine(case._replace(dtype=dtype), theta, fast, device="cuda")


@pytest.mark.parametrize("theta", [1.0, 0.6])
@pytest.mark.parametrize("engine", [TritonEngine(), TwoCallsEngine()], ids=repr)
def test_compiles_into_one_graph(engine: Engine, theta: float) -> None:
    case = Case(65, d=64, dtype="bfloat16", biased=True)
    checks.compiled(case, theta, device="cuda", engine=engine)


@pytest.mark.parametrize(
    ("dtype", "theta"), [("float32", 1.0), ("float32", 0.6), ("bfloat16", 1.0), ("float16", 1.0)]
)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("n", [17, 197, 785])
def test_two_calls(n: int, biased: bool, dtype: str, theta: float) -> None:
    case = Case(n, d=64, b=2, dtype=dtype, biased=biased)
    precision = "float32" if dtype == "float32" else "float16"
    checks.engine(case, theta, False, "cuda", TwoCallsEngine(), precision)


@pytest.mark.parametrize("engine", [TritonEngine(), TwoCallsEngine()], ids=repr)
def test_a_graph_of_cuda_replays(engine: Engine) -> None:
    heads, bias, state = Case(197, d=64, dtype="bfloat16", biased=True).make("cuda")
    requires = (AttentionStat.diagonal(), AttentionStat.column_sum())
    given = (heads.q.clone(), heads.k, heads.v)

    def run() -> tuple[torch.Tensor, ...]:
        out, stats = engine(QKV(*given, heads.scale), AttentionSpec(requires, bias), state)
        return (out, *(stats[stat] for stat in requires))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    given[0].mul_(0.5)
    graph.replay()
    for one, other in zip(found, run(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("n", "m"), [(2, 1), (65, 64), (196, 8), (1100, 5)])
def test_graphs(n: int, m: int, dtype: str) -> None:
    reductions.graph("mixed", n, 384, m, dtype, device="cuda")
    reductions.equal_neighbours(n, m, device="cuda")
