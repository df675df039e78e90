"""Blocks to try the kernels on, and what their attention is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tokenred.attention import QKV, AttentionStat
from tokenred.core.state import TokenState

NEEDS = (
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
STEPS = 2.0**23


class Case(NamedTuple):
    """A block's attention, drawn from a seed.

    Attributes:
        n, d: tokens, and the width of a head.
        b, h: images and heads.
        p: prefix tokens.
        dtype: of queries, keys and values.
        biased: with sizes, every seventh token dead.
        flavour: ``"normal"``; ``"sharp"``, a few entries have it all; ``"flat"``, all equal;
            ``"twins"``, tokens come in pairs.
    """

    n: int
    d: int = 16
    b: int = 1
    h: int = 2
    p: int = 1
    dtype: str = "float32"
    biased: bool = False
    flavour: str = "normal"
    seed: int = 0

    def make(self, device: str = "cpu") -> tuple[QKV, Tensor | None, TokenState]:
        """QKV as three views into one projection, the bias, and the state."""
        b, h, n, d, p = self.b, self.h, self.n, self.d, self.p
        generator = torch.Generator().manual_seed(self.seed)
        qkv = torch.randn(b, n, 3, h, d, generator=generator)
        if self.flavour == "twins":
            qkv = qkv[:, torch.arange(n) // 2]
        qkv[:, :, 0] *= {"sharp": 12.0, "flat": 0.0}.get(self.flavour, 2.0)
        qkv = qkv.to(device, getattr(torch, self.dtype))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = torch.randint(1, 9, (b, n), generator=generator).float().log()
        bias[:, 3::7] = -torch.inf
        index = torch.arange(n - p, device=device).expand(b, -1)
        state = TokenState(
            torch.zeros(b, n, 1, device=device), index, p, (1, n - p), cls_index=0 if p else None
        )
        return QKV(q, k, v, d**-0.5), bias.to(device) if self.biased else None, state


def truth(heads: QKV, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The map and the log-sum-exp of its rows, in float64."""
    logits = heads.q.double() @ heads.k.double().transpose(-2, -1) * heads.scale
    if bias is not None:
        logits = logits + bias.double()[:, None, None, :]
    return logits.softmax(dim=-1), logits.logsumexp(dim=-1)


def close(found: Tensor, expected: Tensor, dtype: str = "float32", more: float = 0.0) -> None:
    """Equal within the precision of a type, relative to the largest, and so much more."""
    size = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.5e-2}[dtype]
    assert found.shape == expected.shape
    assert bool(found.isfinite().all())
    error = (found.double() - expected).abs().max() if found.numel() else torch.tensor(0.0)
    bound = size * max(1.0, float(expected.abs().max())) + more if found.numel() else size
    assert float(error) <= bound, f"off by {float(error):.2e}, allowed {bound:.2e}"
