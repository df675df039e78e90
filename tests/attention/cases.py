"""Blocks to try engines and kernels on, and what their attention is."""

from typing import NamedTuple

import torch
from torch import Tensor

from tokenred.attention import QKV, AttentionSpec, AttentionStat, Engine, PlainEngine
from tokenred.core.state import TokenState

STATS = (
    AttentionStat.diagonal("max"),
    AttentionStat.diagonal("mean"),
    AttentionStat.column_sum("max"),
    AttentionStat.column_sum("mean", exclude_self=False),
    AttentionStat.kept(),
    AttentionStat.keys(),
)
ROWS = (
    AttentionStat.row("cls", "max"),
    AttentionStat.row(0, "mean"),
    AttentionStat.logits_row("cls"),
)


class Case(NamedTuple):
    """A block's attention, drawn from a seed.

    Attributes:
        n, d: tokens, and the width of a head.
        b, h: images and heads.
        p: prefix tokens.
        dtype: of queries, keys and values.
        biased: with sizes, every seventh token dead.
        pairs: images with a bias on their pairs of tokens; 0 for none, 1 for one that all share.
        flavour: ``"normal"``; ``"sharp"``, a few entries have it all; ``"flat"``, all equal;
            ``"twins"``, tokens come in pairs.
        scale: factor on the logits; 0 for 1/√d.
    """

    n: int
    d: int = 16
    b: int = 1
    h: int = 2
    p: int = 1
    dtype: str = "float32"
    biased: bool = False
    pairs: int = 0
    flavour: str = "normal"
    seed: int = 0
    scale: float = 0

    def make(self, device: str = "cpu") -> tuple[QKV, Tensor | None, TokenState]:
        """QKV as three views into one projection, the bias of the keys, and the state."""
        b, h, n, d, p = self.b, self.h, self.n, self.d, self.p
        generator = torch.Generator().manual_seed(self.seed)
        qkv = torch.randn(b, n, 3, h, d, generator=generator, dtype=torch.float64)
        if self.flavour == "twins":
            qkv = qkv[:, torch.arange(n) // 2]
        qkv[:, :, 0] *= {"sharp": 12.0, "flat": 0.0}.get(self.flavour, 2.0)
        qkv = qkv.to(device, getattr(torch, self.dtype))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        full = torch.promote_types(q.dtype, torch.float32)
        bias = torch.randint(1, 9, (b, n), generator=generator).to(device, full).log()
        bias[:, 3::7] = -torch.inf
        pairs = torch.randn(max(self.pairs, 1), h, n, n, generator=generator).to(device, full) * 2
        index = torch.arange(n - p, device=device).expand(b, -1)
        x, cls = torch.zeros(b, n, 1, device=device), 0 if p else None
        state = TokenState(x, index, p, (1, n - p), cls_index=cls)
        heads = QKV(q, k, v, self.scale or d**-0.5, bias=pairs if self.pairs else None)
        return heads, bias if self.biased else None, state

    @property
    def stats(self) -> tuple[AttentionStat, ...]:
        return (*STATS, *(ROWS if self.p else ()))


def doubled(qkv: QKV) -> QKV:
    """The same numbers in double precision."""
    return QKV(qkv.q.double(), qkv.k.double(), qkv.v.double(), qkv.scale)


def truth(qkv: QKV, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The map and the log-sum-exp of its rows, in float64."""
    logits = qkv.q.double() @ qkv.k.double().transpose(-2, -1) * qkv.scale
    if bias is not None:
        logits = logits + bias.double()[:, None, None, :]
    return logits.softmax(dim=-1), logits.logsumexp(dim=-1)


def agrees(engine: Engine, case: Case, theta: float = 1.0) -> None:
    """An engine has the output and the statistics of the plain one."""
    qkv, bias, state = case.make()
    spec = AttentionSpec(case.stats, bias, theta)
    assert engine.supports(qkv, spec)
    (out, found), (expected, stats) = (one(qkv, spec, state) for one in (engine, PlainEngine()))
    small = 1e-5 if case.dtype == "float32" else 1e-9
    torch.testing.assert_close(out, expected, rtol=small, atol=small)
    assert found.values.keys() == stats.values.keys()
    for stat in spec.requires:
        torch.testing.assert_close(found[stat], stats[stat], rtol=small, atol=small / 10)


def close(found: Tensor, expected: Tensor, dtype: str = "float32", more: float = 0.0) -> None:
    """Equal within the precision of a type, relative to the largest, and so much more."""
    size = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.5e-2}[dtype]
    assert found.shape == expected.shape
    if found.numel():
        assert bool(found.isfinite().all())
        error = float((found.double() - expected).abs().max())
        bound = size * max(1.0, float(expected.abs().max())) + more
        assert error <= bound, f"off by {error:.2e}, allowed {bound:.2e}"
