"""The blocks of timm's Eva, opened at the attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import apply_rot_embed_cat
from timm.models import eva
from torch import Tensor, nn

from tokenred.attention import QKV
from tokenred.backbones.base import BlockAdapter, open_known
from tokenred.backbones.calls import entered
from tokenred.backbones.eva_rotary import Rotary
from tokenred.backbones.linear_cost import linear_macs
from tokenred.backbones.vit_blocks import PostNorm, attention_output, watched_dropout
from tokenred.core.info import BlockInfo
from tokenred.core.state import TokenState

__all__ = ["EvaPostNorm", "EvaPreNorm", "open_block", "projected", "split_width"]


def projected(attn: Any, x: Float[Tensor, "b N c"]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, ``(b, h, N, d)``, before anything is done to them.

    For timm's attention with one projection or three, whose keys may have no bias or fewer heads.
    """
    if attn.qkv is None:
        q, k, v = attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
    else:
        q, k, v = _fused(attn, x).chunk(3, dim=-1)
    width = split_width(attn)
    q, k, v = (t.unflatten(-1, (-1, width)).transpose(1, 2) for t in (q, k, v))
    return q, k, v


def _fused(attn: Any, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N three_hd"]:
    if getattr(attn, "q_bias", None) is None:
        return attn.qkv(x)  # type: ignore[no-any-return]
    bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
    if getattr(attn, "qkv_bias_separate", False):
        return attn.qkv(x) + bias  # type: ignore[no-any-return]
    return F.linear(x, attn.qkv.weight, bias)


def split_width(attn: Any) -> int:
    """``d``, which not every version of timm says."""
    return int(attn.proj.in_features) // int(attn.num_heads)


def _rotated(attn: Any, x: Float[Tensor, "b h N d"], rope: Tensor) -> Float[Tensor, "b h N d"]:
    # timm before 1.0.20 has one layout, and no argument for it.
    layout = {"half": True} if getattr(attn, "rotate_half", False) else {}
    p = attn.num_prefix_tokens
    return torch.cat((x[:, :, :p], apply_rot_embed_cat(x[:, :, p:], rope, **layout)), dim=2)


def _heads(attn: Any, x: Float[Tensor, "b N c"], rope: Tensor | None, listens: bool = True) -> QKV:
    """Of the normed tokens; prefix tokens have no position and are not turned."""
    x, calls = entered(attn, x, listens)
    q, k, v = projected(attn, x)
    if hasattr(attn, "q_norm"):  # timm from 1.0.16 on
        q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        q, k = _rotated(attn, q, rope).type_as(v), _rotated(attn, k, rope).type_as(v)
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        # Grouped queries: neighbours share keys and values. Engines want as many of each.
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    gate = getattr(attn, "gate", None)
    return QKV(
        q,
        k,
        v,
        scale=attn.scale,
        dropout=attn.attn_drop.p if attn.training else 0.0,
        carry=() if gate is None else (gate(x).sigmoid(),),
        calls=calls,
        drop=watched_dropout(attn),
    )


def _rope(state: TokenState) -> Tensor | None:
    return state.positions.at(state) if isinstance(state.positions, Rotary) else None


class _EvaAttention(BlockAdapter):
    """What the blocks share: attention whose positions are turned into queries and keys."""

    block: Any

    def run(self, state: TokenState) -> Float[Tensor, "b N c"] | None:
        return self.whole(state.x, rope=_rope(state))  # type: ignore[no-any-return]

    def heads(self, x: Float[Tensor, "b N c"]) -> QKV:
        return _heads(self.block.attn, self._attention_input(x), None, self.listens)

    def qkv_of(self, state: TokenState) -> QKV:
        x = self._attention_input(state.x)
        return _heads(self.block.attn, x, _rope(state), self.listens)

    def _attention_input(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        return x

    def info(self) -> BlockInfo:
        b = self.block
        pair = 2 * b.attn.num_heads * split_width(b.attn)
        return BlockInfo(linear_macs(b.attn), pair, linear_macs(b.mlp))


class EvaPreNorm(_EvaAttention):
    """``x += γ1 · attn(norm1 x); x += γ2 · mlp(norm2 x)`` (``EvaBlock``)."""

    def _attention_input(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        return self.block.norm1(x)  # type: ignore[no-any-return]

    def after_attention(
        self, x: Float[Tensor, "b N c"], out: Float[Tensor, "b h N d"], heads: QKV
    ) -> Float[Tensor, "b N c"]:
        b = self.block
        attended = attention_output(b.attn, out, heads.carry, heads.calls)
        residual: Tensor = b.drop_path1(_scaled(b.gamma_1, attended))
        return x + residual

    def after_mlp(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        b = self.block
        residual: Tensor = b.drop_path2(_scaled(b.gamma_2, b.mlp(b.norm2(x))))
        return x + residual


class EvaPostNorm(_EvaAttention, PostNorm):
    """``x += norm1(attn(x)); x += norm2(mlp(x))`` (``EvaBlockPostNorm``)."""


def _scaled(gamma: Tensor | None, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
    return x if gamma is None else gamma * x


_ANATOMIES: dict[type[nn.Module], type[BlockAdapter]] = {
    eva.EvaBlock: EvaPreNorm,
    eva.EvaBlockPostNorm: EvaPostNorm,
}
# The second one came with timm 1.0.16.
_ATTENTIONS = tuple(
    getattr(eva, name) for name in ("EvaAttention", "AttentionRope") if hasattr(eva, name)
)


def open_block(block: nn.Module) -> BlockAdapter:
    """The anatomy of a block of timm's Eva.

    Raises:
        BackboneError: for a block or an attention that is not known.
    """
    return open_known(block, _ANATOMIES, _ATTENTIONS, "timm's Eva")
