"""The plain engine: the map as a tensor."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.score_mods import kept_entries, sparsify
from tokenred.attention.spec import QKV, AttentionSpec, Engine
from tokenred.attention.stats import AttentionStats, stats_of_map
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32, full_precision, product

__all__ = ["PLAIN", "PlainEngine"]


class PlainEngine(Engine):
    """The map as a tensor: supports everything, and is what the other engines are tested by.

    The map is in fp32 or better, and so are its statistics.
    """

    def supports(self, heads: QKV, request: AttentionSpec) -> bool:
        return True

    def __call__(
        self, heads: QKV, request: AttentionSpec, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        q = heads.q.to(at_least_fp32(heads.q.dtype)) * heads.scale
        logits = product(q, heads.k.transpose(-2, -1))
        if heads.bias is not None:
            logits = logits + heads.bias.to(logits.dtype)
        if request.key_bias is not None:
            logits = logits + request.key_bias.to(logits.dtype)[:, None, None, :]
        for mod in request.score_mods:
            logits = mod(logits, state)
        attention = None
        for mod in request.score_mods:
            if attention is None:
                attention = mod.normalize(logits, state)
        if attention is None:
            attention = logits.softmax(dim=-1)
        del logits
        n = attention.shape[-1]
        if request.theta < 1:
            attention = sparsify(attention, request.theta, request.reference)
        found = stats_of_map(
            attention, request.requires, state.num_prefix, state.cls_index, _share(request, n)
        )
        found.update(heads.stats(request.requires, state))
        if heads.drop is not None:
            dropped = heads.drop(attention.to(heads.v.dtype))
        else:
            dropped = F.dropout(attention, heads.dropout, heads.dropout > 0).to(heads.v.dtype)
        with full_precision(dropped.device):
            return dropped @ heads.v, AttentionStats(found)


def _share(request: AttentionSpec, n: int) -> float:
    """The share of entries that θ leaves."""
    return kept_entries(n, request.theta, request.reference) / n**2 if request.theta < 1 else 1.0


PLAIN = PlainEngine()
