"""The plain engine: the map as a tensor."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.edits import kept_entries, sparsify
from tokenred.attention.request import Engine, Heads, Request
from tokenred.attention.stats import AttentionStats, stats_of_map
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32, full_precision, product

__all__ = ["PLAIN", "PlainEngine"]


class PlainEngine(Engine):
    """The map as a tensor: supports everything, and is what the other engines are tested by.

    The map is in fp32 or better, and so are its statistics.
    """

    def supports(self, heads: Heads, request: Request) -> bool:
        return True

    def __call__(
        self, heads: Heads, request: Request, state: TokenState
    ) -> tuple[Float[Tensor, "b h N d"], AttentionStats]:
        q = heads.q.to(at_least_fp32(heads.q.dtype)) * heads.scale
        logits = product(q, heads.k.transpose(-2, -1))
        if heads.bias is not None:
            logits = logits + heads.bias.to(logits.dtype)
        if request.key_bias is not None:
            logits = logits + request.key_bias.to(logits.dtype)[:, None, None, :]
        for edit in request.edits:
            logits = edit(logits, state)
        attention = None
        for edit in request.edits:
            if attention is None:
                attention = edit.normalize(logits, state)
        if attention is None:
            attention = logits.softmax(dim=-1)
        del logits
        if request.theta < 1:
            attention = sparsify(attention, request.theta, request.reference)
        found = stats_of_map(attention, request.needs, state.num_prefix, state.cls_index)
        found.update(heads.stats(request.needs, state))
        for need in request.needs:
            if need.kind == "kept":
                found[need] = attention.new_full(attention.shape[:2], _share(request, attention))
        if heads.drop is not None:
            dropped = heads.drop(attention.to(heads.v.dtype))
        else:
            dropped = F.dropout(attention, heads.dropout, heads.dropout > 0).to(heads.v.dtype)
        with full_precision(dropped.device):
            return dropped @ heads.v, AttentionStats(found)


def _share(request: Request, attention: Float[Tensor, "b h N N"]) -> float:
    n = attention.shape[-1]
    exact = kept_entries(n, request.theta, request.reference) / n**2
    return exact if request.theta < 1 else 1.0


PLAIN = PlainEngine()
