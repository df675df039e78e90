"""What the kernels are held to, on any device. Called under the interpreter, and on a GPU."""

import math
import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.attention.cases import STATS, Case, close, doubled, truth
from tokenred.attention import QKV, AttentionSpec, AttentionStat, Engine, PlainEngine
from tokenred.attention.score_mods import SLACK, kept_entries, sparsify
from tokenred.attention.triton import OnePassEngine, TritonEngine, launch

STEPS = 2.0**23


def kernels() -> tuple[Any, Any, Any]:
    """Forward, statistics and threshold; only here is Triton imported."""
    from tokenred.attention.triton.forward import forward
    from tokenred.attention.triton.statistics import statistics
    from tokenred.attention.triton.threshold import threshold

    return forward, statistics, threshold


def forward(case: Case, device: str = "cpu", dead: int = 0) -> None:
    """The output and the log-sum-exp; while all keys so far are dead, nothing becomes NaN."""
    heads, bias, _ = case.make(device)
    if bias is not None:
        bias[:, :dead] = -torch.inf
    out, lse = kernels()[0](heads.q, heads.k, heads.v, bias, heads.scale)
    attention, expected = truth(heads, bias)
    assert (out.dtype, lse.dtype) == (heads.q.dtype, torch.float32)
    assert out.transpose(1, 2).is_contiguous()
    close(out, attention @ heads.v.double(), case.dtype)
    close(lse * math.log(2), expected)


def statistics(case: Case, device: str = "cpu") -> None:
    """Column sums, diagonal and rows, each alone and all together, and twice the same."""
    run_forward, run, _ = kernels()
    heads, bias, _ = case.make(device)
    _, lse = run_forward(heads.q, heads.k, heads.v, bias, heads.scale)
    attention, _ = truth(heads, bias)
    rows = min(3, case.n)
    for column_sum, diagonal, asked in (
        (True, True, rows), (True, False, 0), (False, True, 0), (False, False, rows)
    ):  # fmt: skip
        given = (heads.q, heads.k, bias, lse, None, heads.scale, column_sum, diagonal, asked)
        sums, own, first = run(*given)
        close(sums, attention.sum(dim=-2)[..., : case.n if column_sum else 0])
        close(own, attention.diagonal(dim1=-2, dim2=-1)[..., : case.n if diagonal else 0])
        close(first, attention[:, :, :asked])
        assert all(torch.equal(a, b) for a, b in zip((sums, own, first), run(*given), strict=True))


def threshold(case: Case, theta: float, slack_share: float = 0.0, device: str = "cpu") -> None:
    """So many entries lie above the threshold, and none below it is larger than one above."""
    run_forward, _, run = kernels()
    heads, bias, _ = case.make(device)
    _, lse = run_forward(heads.q, heads.k, heads.v, bias, heads.scale)
    kept, slack = kept_entries(case.n, theta), int(slack_share * case.n**2)
    cut = run(heads.q, heads.k, bias, lse, heads.scale, kept, slack).cpu()
    level, last, count = cut.unbind(dim=-1)
    assert bool(((count - kept).abs() <= slack).all())
    attention = truth(heads, bias)[0].cpu()
    # In log2, and with the rounding of a logit left open: float32, or three products of TF32.
    x, near = attention.log2().clamp(min=-150), 4e-5 if device == "cpu" else 1e-3
    lowest = (level.double() / STEPS)[..., None, None]
    above, reach = (x > lowest + near).sum(dim=(2, 3)), (x >= lowest - near).sum(dim=(2, 3))
    assert bool(((above <= count) & (count <= reach) & (last >= 0)).all())


def misleading_sample(theta: float) -> None:
    """Rows that are sampled are unlike the others: one key has all of theirs."""
    run, _, run_threshold = kernels()
    n = 96
    q, k = (torch.randn(1, 1, n, 16, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    q[:, :, 3::6] *= 50  # of 96 rows, 16 are looked at: every sixth, from the fourth
    _, lse = run(q, k, k, None, 0.25)
    kept = kept_entries(n, theta)
    cut = run_threshold(q, k, None, lse, 0.25, kept, 0)
    assert int(cut[0, 0, 2]) == kept
    expected = sparsify(truth(QKV(q, k, k, 0.25), None)[0], theta)
    close(run(q, k, k, None, 0.25, lse, cut)[0], expected @ k.double())


def ties(n: int, theta: float, axes: int, device: str = "cpu") -> None:
    """Equal entries go by their place, as in `sparsify`, entry by entry.

    Every query meets n/axes of the keys, so that the map has two levels, without any rounding; the
    values are the unit matrix, so that the output is the map.
    """
    run, run_statistics, run_threshold = kernels()
    token = torch.nn.functional.one_hot(torch.arange(n) % axes, n).float()
    q, v = token.to(device).expand(1, 1, n, n), torch.eye(n, device=device).expand(1, 1, n, n)
    k, scale = q.clone(), 3 * math.log(2)
    _, lse = run(q, k, v, None, scale)
    attention = torch.where(q @ k.transpose(-2, -1) > 0, 8.0, 1.0)
    attention = attention / attention.sum(dim=-1, keepdim=True)
    kept = kept_entries(n, theta)
    cut = run_threshold(q, k, None, lse, scale, kept, 0)
    assert int(cut[0, 0, 2]) == kept
    expected = sparsify(attention, theta)
    out, _ = run(q, k, v, None, scale, lse, cut)
    sums, own, rows = run_statistics(q, k, None, lse, cut, scale, True, True, n)
    assert torch.equal(out > 0, expected > 0)
    assert torch.equal(rows > 0, expected > 0)
    close(out, expected.double())
    close(sums, expected.sum(dim=-2).double())
    close(own, expected.diagonal(dim1=-2, dim2=-1).double())


def sparse(case: Case, theta: float, device: str = "cpu") -> None:
    """The output and the statistics through what θ keeps; the values spell the map out."""
    run, run_statistics, run_threshold = kernels()
    heads, bias, _ = case.make(device)
    values = torch.eye(case.d, dtype=heads.v.dtype, device=device)[: case.n]
    assert len(values) == case.n, "the map is as wide as a head"
    given = (heads.q, heads.k, values.expand_as(heads.q), bias, heads.scale)
    _, lse = run(*given)
    kept = kept_entries(case.n, theta)
    cut = run_threshold(heads.q, heads.k, bias, lse, heads.scale, kept, 0)
    out = run(*given, lse, cut)[0][..., : case.n].double()
    attention, _ = truth(heads, bias)
    stays = out > 0
    close(out, torch.where(stays, attention, 0.0), case.dtype)
    alive = (attention > 1e-30).sum(dim=(2, 3))
    assert torch.equal(stays.sum(dim=(2, 3)), alive.clamp(max=kept))
    smallest = torch.where(stays, attention, 2.0).amin(dim=(2, 3))
    largest = torch.where(stays, 0.0, attention).amax(dim=(2, 3))
    assert bool((largest <= smallest * (1 + 1e-4)).all())
    sums, own, rows = run_statistics(
        heads.q, heads.k, bias, lse, cut, heads.scale, True, True, case.n
    )
    expected = torch.where(stays, attention, 0.0)
    assert torch.equal(rows > 0, stays)
    close(rows, expected)
    close(sums, expected.sum(dim=-2))
    close(own, expected.diagonal(dim1=-2, dim2=-1))


def one_pass(case: Case, device: str = "cpu", row: int = 0) -> None:
    """Output and statistics of one pass; each statistic alone too, and twice the same."""
    from tokenred.attention.triton.one_pass import one_pass as run

    heads, bias, _ = case.make(device)
    attention, _ = truth(heads, bias)
    for column_sum, diagonal, asked in (
        (True, True, row), (True, False, -1), (False, True, -1), (False, False, case.n - 1)
    ):  # fmt: skip
        given = (heads.q, heads.k, heads.v, bias, heads.scale, column_sum, diagonal, asked)
        out, sums, own, one = run(*given)
        assert out.dtype == heads.q.dtype
        assert out.transpose(1, 2).is_contiguous()
        close(out, attention @ heads.v.double(), case.dtype)
        close(sums.sum(dim=2), attention.sum(dim=-2)[..., : case.n if column_sum else 0])
        close(own, attention.diagonal(dim1=-2, dim2=-1)[..., : case.n if diagonal else 0])
        close(one, attention[:, :, asked, : case.n if asked >= 0 else 0])
        again = run(*given)
        assert all(torch.equal(a, b) for a, b in zip((out, sums, own, one), again, strict=True))


def one_pass_engine(case: Case, device: str = "cpu") -> None:
    """The engine of one pass, which has one row; that of CLS where there is one."""
    rows = (AttentionStat.row("cls", "mean"), AttentionStat.logits_row("cls")) if case.p else ()
    engine(case, device=device, engine=OnePassEngine(), stats=(*STATS, *rows))


def engine(
    case: Case,
    theta: float = 1.0,
    fast: bool = False,
    device: str = "cpu",
    engine: Engine | None = None,
    precision: str = "float32",
    stats: tuple[AttentionStat, ...] = (),
) -> None:
    """An engine, this one by default, against the map in float64; statistics to a precision."""
    engine = engine or TritonEngine()
    heads, bias, state = case.make(device)
    spec = AttentionSpec(stats or case.stats, bias, theta, "fast" if fast else "exact")
    assert engine.supports(heads, spec)
    out, found = engine(heads, spec, state)
    expected, known = PlainEngine()(doubled(heads), spec, state)
    assert set(found.values) == set(spec.requires)
    share = found[AttentionStat.kept()]
    if fast and theta < 1:
        assert bool(((share - theta).abs() <= max(SLACK, 2 / case.n**2)).all())
        # Through slightly more or fewer of the smallest entries: nearly the same.
        size = max(1.0, float(heads.v.abs().max()))
        assert float((out - expected).abs().max()) <= 0.05 * size
        return
    doubt = doubtful(truth(heads, bias)[0], theta, device)
    close(out, expected, case.dtype, doubt * float(heads.v.abs().max()))
    for stat in spec.requires:
        if stat.kind not in ("keys", "logits_row"):
            assert found[stat].dtype == torch.float32
            close(found[stat], known[stat], precision, doubt)


def doubtful(attention: Tensor, theta: float, device: str) -> float:
    """The sum of the entries that are so near to the threshold that rounding may decide."""
    if theta == 1:
        return 0.0
    flat = attention.flatten(2).log()
    k = kept_entries(attention.shape[-1], theta)
    threshold = flat.kthvalue(flat.shape[-1] - k + 1, dim=-1, keepdim=True).values
    near = ((flat - threshold).abs() < (2e-5 if device == "cpu" else 1e-4)).sum(dim=-1) - 1
    return float((near * threshold[..., 0].exp()).max())


def engine_with_large_tiles(case: Case, theta: float) -> None:
    """The same where the tiles of a GPU would be too many for the interpreter."""
    usual = launch.blocks_for
    launch.blocks_for = lambda *of: launch.Blocks(256, 512, 4, 1)
    try:
        engine(case, theta)
    finally:
        launch.blocks_for = usual


def compiled(case: Case, theta: float, device: str = "cpu", engine: Engine | None = None) -> None:
    """One graph, and the same numbers."""
    engine = engine or TritonEngine()
    heads, bias, state = case.make(device)

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, x: Tensor) -> list[Tensor]:
        asked, spec = QKV(q, k, v, 0.25), AttentionSpec(case.stats, bias, theta)
        assert engine.supports(asked, spec)
        out, stats = engine(asked, spec, replace(state, x=x))
        return [out, *(stats[stat] for stat in spec.requires)]

    given = (heads.q, heads.k, heads.v, bias, state.x)
    backend = "aot_eager" if device == "cpu" else "inductor"
    found = torch.compile(attend, fullgraph=True, backend=backend)(*given)
    for one, other in zip(found, attend(*given), strict=True):
        torch.testing.assert_close(one, other)


def refused() -> None:
    """What the engine leaves to others."""
    heads, bias, _ = Case(9, biased=True).make()
    engine, spec = TritonEngine(), AttentionSpec(Case(9).stats, bias)
    assert engine.supports(heads, spec)
    assert not engine.supports(replace(heads, q=heads.q.double()), spec)
    wide = torch.zeros(1, 1, 2, 257)
    assert not engine.supports(QKV(wide, wide, wide, 1.0), spec)
    one = OnePassEngine()
    assert one.supports(heads, AttentionSpec(STATS, bias))
    assert not one.supports(heads, spec)  # two rows
    assert not one.supports(heads, AttentionSpec(STATS, theta=0.6))
    for n, d, fits in ((256, 64, True), (256, 80, False), (128, 80, True), (257, 16, False)):
        case = Case(n, d=d, h=1)
        assert one.supports(case.make()[0], AttentionSpec(STATS)) is fits
    assert one.supports(Case(256, d=128, dtype="bfloat16").make()[0], AttentionSpec(STATS))


def interpreting() -> bool:
    """Whether this process interprets, so that no test passes without having run a kernel."""
    import triton

    from tokenred.attention.triton.forward import _forward

    switched = os.environ.get("TRITON_INTERPRET") == "1"
    return switched and not isinstance(_forward, triton.runtime.JITFunction)
