"""Engines: compute a block's attention together with the requested statistics.

An engine that supports a spec must agree with `PlainEngine`, which holds the whole map and follows
the definitions.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.plain import PLAIN
from tokenred.attention.recompute import Recomputed
from tokenred.attention.spec import QKV, Attended, AttentionSpec, Engine
from tokenred.attention.stats import AttentionStats
from tokenred.attention.tiled.engine import TiledEngine
from tokenred.attention.triton import OnePassEngine, TritonEngine
from tokenred.attention.two_calls import TwoCallsEngine
from tokenred.core.capture import is_eager
from tokenred.core.errors import ConfigError, shown
from tokenred.core.state import TokenState
from tokenred.core.tensors import full_precision
from tokenred.core.values import EngineName


class FusedEngine(Engine):
    """PyTorch's fused attention, for blocks that need no statistics."""

    def supports(self, qkv: QKV, spec: AttentionSpec) -> bool:
        return not spec.needs_map

    def __call__(self, qkv: QKV, spec: AttentionSpec, state: TokenState) -> Attended:
        bias = spec.key_bias
        mask = None if bias is None else _mask(bias, qkv.q)
        if qkv.bias is not None:
            pairs = qkv.bias.to(qkv.q.dtype)
            mask = pairs if mask is None else pairs + mask
        out = F.scaled_dot_product_attention(
            qkv.q, qkv.k, qkv.v, attn_mask=mask, dropout_p=qkv.dropout, scale=qkv.scale
        )
        return out, AttentionStats(qkv.stats(spec.requires, state))


def _mask(bias: Float[Tensor, "b N"], q: Tensor) -> Float[Tensor, "b 1 1 N"]:
    """A bias on the keys in the type of the queries, rows aligned as CUDA's kernels want them."""
    if not q.is_cuda or not is_eager() or bias.requires_grad:
        return bias.to(q.dtype)[:, None, None]
    b, n = bias.shape
    held = q.new_empty(b, 1, 1, -(-n // 8) * 8)[..., :n]
    return held.copy_(bias[:, None, None])


_FUSED, _TILED, _TWO_CALLS, _TRITON = FusedEngine(), TiledEngine(), TwoCallsEngine(), TritonEngine()
_ONE_PASS = OnePassEngine()
_ON_CUDA = TwoCallsEngine(("cuda",))  # on a CPU tiles are faster
# Tried in order; the last one supports everything.
_ENGINES: dict[EngineName, tuple[Engine, ...]] = {
    "auto": (_FUSED, _TILED, _ON_CUDA, Recomputed(_ON_CUDA), PLAIN),
    "plain": (PLAIN,),
    "tiled": (_FUSED, _TILED, Recomputed(_TILED), PLAIN),
    "two_calls": (_FUSED, _TWO_CALLS, Recomputed(_TWO_CALLS), PLAIN),
    "one_pass": (_FUSED, _ONE_PASS, _TRITON, Recomputed(_TRITON), PLAIN),
    "triton": (_FUSED, _TRITON, Recomputed(_TRITON), PLAIN),
}
ENGINES = _ENGINES["auto"]


def pick_engine(name: str) -> tuple[Engine, ...]:
    """The engines to try, in order.

    Args:
        name: ``"auto"`` for tiles on the CPU and two fused calls on CUDA; ``"plain"`` for the map
            as a tensor; ``"tiled"``, ``"two_calls"`` or ``"triton"`` for that engine wherever it is
            supported, in training too, and the plain one elsewhere; ``"one_pass"`` like
            ``"triton"``, with one kernel for maps of up to 256 keys. With the last two, inference
            on CUDA also builds graphs, selects and fuses tokens in kernels.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in _ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(_ENGINES)}, got {shown(name)}.")
    return _ENGINES[name]


def attend(
    qkv: QKV, spec: AttentionSpec, state: TokenState, engines: tuple[Engine, ...] = ENGINES
) -> Attended:
    """Attention by the first engine that supports the spec.

    Engines run in one dtype, that of the dense model's attention, and without autocast: what they
    compute in fp32 stays in fp32.
    """
    same = qkv.in_one_type()
    engine: Engine = PLAIN
    for fitting in engines if qkv.drop is None else ():
        if fitting.supports(same, spec):
            engine = fitting
            break
    with full_precision(same.q.device):
        out, stats = engine(same, spec, state)
    if same is not qkv:  # keys and values unchanged
        stats = AttentionStats({**stats.values, **qkv.stats(spec.requires, state)})
    return out, stats
