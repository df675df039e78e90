"""The plain engine: the map as a tensor."""

import torch.nn.functional as F

from tokenred.attention.score_mods import kept_entries, sparsify
from tokenred.attention.spec import QKV, Attended, AttentionSpec, Engine
from tokenred.attention.stats import AttentionStats, stats_of_map
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32, full_precision, product


class PlainEngine(Engine):
    """The map as a tensor: supports everything, and is the reference for the other engines.

    The map is in fp32 or better, and so are its statistics.
    """

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        return True

    def __call__(self, qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
        q = qkv.q.to(at_least_fp32(qkv.q.dtype)) * qkv.scale
        logits = product(q, qkv.k.transpose(-2, -1))
        if qkv.bias is not None:
            logits = logits + qkv.bias.to(logits.dtype)
        if spec.key_bias is not None:
            logits = logits + spec.key_bias.to(logits.dtype)[:, None, None, :]
        for mod in spec.score_mods:
            logits = mod(logits, state)
        attention = None
        for mod in spec.score_mods:
            attention = mod.normalize(logits, state) if attention is None else attention
        if attention is None:
            attention = logits.softmax(dim=-1)
        del logits
        n = attention.shape[-1]
        if spec.theta < 1:
            attention = sparsify(attention, spec.theta, spec.reference)
        share = kept_entries(n, spec.theta, spec.reference) / n**2
        found = stats_of_map(attention, spec.requires, state, share)
        found.update(qkv.stats(spec.requires, state))
        if qkv.drop is not None:
            dropped = qkv.drop(attention.to(qkv.v.dtype))
        else:
            dropped = F.dropout(attention, qkv.dropout, qkv.dropout > 0).to(qkv.v.dtype)
        with full_precision(dropped.device):
            return dropped @ qkv.v, AttentionStats(found)


PLAIN = PlainEngine()
