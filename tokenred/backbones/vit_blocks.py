"""The blocks of timm's VisionTransformer, opened at the attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.models import vision_transformer as vit
from torch import Tensor, nn

from tokenred.attention import QKV
from tokenred.backbones.base import BlockAdapter, open_known
from tokenred.backbones.calls import Call, entered, has_hooks
from tokenred.backbones.linear_cost import linear_macs
from tokenred.core.info import BlockInfo

__all__ = ["PostNorm", "attention_info", "attention_output", "open_block", "watched_dropout"]


def attention_heads(attn: Any, x: Float[Tensor, "b N c"], listens: bool = True) -> QKV:
    """Queries, keys, values of a timm ``Attention``, and its gate if it has one."""
    x, calls = entered(attn, x, listens)
    b, n, _ = x.shape
    qkv = attn.qkv(x).reshape(b, n, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    gate = getattr(attn, "gate", None)
    return QKV(
        attn.q_norm(q),
        attn.k_norm(k),
        v,
        scale=attn.scale,
        dropout=attn.attn_drop.p if attn.training else 0.0,
        carry=() if gate is None else (gate(x).sigmoid(),),
        calls=calls,
        drop=watched_dropout(attn),
    )


def watched_dropout(attn: Any) -> nn.Module | None:
    """The dropout of a map that is more than one, or that somebody listens to.

    None for any other, and where the model's own fused attention would never call it.
    """
    drop = attn.attn_drop
    if getattr(attn, "fused_attn", True):
        return None
    plain = type(drop) in (nn.Dropout, nn.Identity) and "forward" not in vars(drop)
    return None if plain and not has_hooks(drop) else drop


def attention_output(
    attn: Any,
    out: Float[Tensor, "b h N d"],
    gate: tuple[Tensor, ...],
    calls: tuple[Call, ...] = (),
) -> Float[Tensor, "b N c"]:
    """What a timm ``Attention`` does after attending."""
    x = out.transpose(1, 2).flatten(2)
    if hasattr(attn, "norm"):  # timm from 1.0.16 on
        x = attn.norm(x)
    if gate:
        x = x * gate[0]
    x = attn.proj_drop(attn.proj(x))
    return calls[0].leave(x) if calls else x  # type: ignore[no-any-return]


def attention_info(attn: Any) -> tuple[int, int]:
    """Multiply-accumulates for one token, and for one pair of tokens."""
    return linear_macs(attn), 2 * attn.num_heads * attn.head_dim


class PreNorm(BlockAdapter):
    """``x += ls1(attn(norm1 x)); x += ls2(mlp(norm2 x))`` (``Block``)."""

    block: Any

    def heads(self, x: Float[Tensor, "b N c"]) -> QKV:
        return attention_heads(self.block.attn, self.block.norm1(x), self.listens)

    def after_attention(
        self, x: Float[Tensor, "b N c"], out: Float[Tensor, "b h N d"], heads: QKV
    ) -> Float[Tensor, "b N c"]:
        b = self.block
        residual: Tensor = b.drop_path1(
            b.ls1(attention_output(b.attn, out, heads.carry, heads.calls))
        )
        return x + residual

    def after_mlp(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        b = self.block
        residual: Tensor = b.drop_path2(b.ls2(b.mlp(b.norm2(x))))
        return x + residual

    def info(self) -> BlockInfo:
        return BlockInfo(*attention_info(self.block.attn), linear_macs(self.block.mlp))


class PostNorm(PreNorm):
    """``x += norm1(attn(x)); x += norm2(mlp(x))`` (``ResPostBlock``)."""

    def heads(self, x: Float[Tensor, "b N c"]) -> QKV:
        return attention_heads(self.block.attn, x, self.listens)

    def after_attention(
        self, x: Float[Tensor, "b N c"], out: Float[Tensor, "b h N d"], heads: QKV
    ) -> Float[Tensor, "b N c"]:
        b = self.block
        residual: Tensor = b.drop_path1(
            b.norm1(attention_output(b.attn, out, heads.carry, heads.calls))
        )
        return x + residual

    def after_mlp(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        b = self.block
        residual: Tensor = b.drop_path2(b.norm2(b.mlp(x)))
        return x + residual


class ParallelScaling(BlockAdapter):
    """Attention and MLP side by side, one projection in (``ParallelScalingBlock``)."""

    block: Any

    @property
    def parallel(self) -> bool:
        return True

    def heads(self, x: Float[Tensor, "b N c"]) -> QKV:
        b = self.block
        batch, n, _ = x.shape
        mlp, q, k, v = torch.split(b.in_proj(b.in_norm(x)), b.in_split, dim=-1)
        if b.mlp_bias is not None:
            mlp = mlp + b.mlp_bias
        shape = (batch, n, b.num_heads, b.head_dim)
        return QKV(
            b.q_norm(q.view(shape)).transpose(1, 2),
            b.k_norm(k.view(shape)).transpose(1, 2),
            v.view(shape).transpose(1, 2),
            scale=b.scale,
            dropout=b.attn_drop.p if b.training else 0.0,
            carry=(mlp,),
            drop=watched_dropout(b),
        )

    def after_attention(
        self, x: Float[Tensor, "b N c"], out: Float[Tensor, "b h N d"], heads: QKV
    ) -> Float[Tensor, "b N c"]:
        b = self.block
        attended = out.transpose(1, 2).flatten(2)
        mlp = b.mlp_drop(b.mlp_act(heads.carry[0]))
        # timm before 1.0.16 has only the separate projections, and another name for one of them.
        if getattr(b, "out_proj", None) is not None:
            y = b.out_proj(torch.cat((attended, mlp), dim=-1))
        else:
            y = b.attn_out_proj(attended) + b.mlp_out_proj(mlp)
        residual: Tensor = b.drop_path(b.ls(y))
        return x + residual

    def after_mlp(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        return x

    def info(self) -> BlockInfo:
        b = self.block
        width = b.num_heads * b.head_dim
        attention = 4 * width * width
        return BlockInfo(attention, 2 * width, linear_macs(b) - attention, parallel=True)


class ParallelThings(BlockAdapter):
    """Several attentions side by side, then several MLPs (``ParallelThingsBlock``).

    Their heads are taken together, so that a statistic is over all heads of the block.
    """

    block: Any

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.passed_by = list(self.block.attns)

    @property
    def attentions(self) -> Sequence[nn.Module]:
        return [a.attn for a in self.block.attns]

    def heads(self, x: Float[Tensor, "b N c"]) -> QKV:
        each = [attention_heads(a.attn, a.norm(x), self.listens) for a in self.block.attns]
        drops = [a.attn.attn_drop for a in self.block.attns]

        def drop(attention: Float[Tensor, "b h N N"]) -> Float[Tensor, "b h N N"]:
            maps = attention.chunk(len(drops), dim=1)
            return torch.cat([d(m) for d, m in zip(drops, maps, strict=True)], dim=1)

        return QKV(
            torch.cat([h.q for h in each], dim=1),
            torch.cat([h.k for h in each], dim=1),
            torch.cat([h.v for h in each], dim=1),
            scale=each[0].scale,
            dropout=each[0].dropout,
            carry=tuple(gate for h in each for gate in h.carry),
            calls=tuple(h.calls for h in each),
            drop=drop if any(h.drop for h in each) else None,
        )

    def after_attention(
        self, x: Float[Tensor, "b N c"], out: Float[Tensor, "b h N d"], heads: QKV
    ) -> Float[Tensor, "b N c"]:
        branches = list(self.block.attns)
        outs = out.chunk(len(branches), dim=1)
        gates: list[tuple[Tensor, ...]] = [(g,) for g in heads.carry] or [()] * len(branches)
        done = [
            a.drop_path(a.ls(attention_output(a.attn, o, g, calls)))
            for a, o, g, calls in zip(branches, outs, gates, heads.calls, strict=True)
        ]
        return x + torch.stack(done).sum(dim=0)

    def after_mlp(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        return x + torch.stack([ffn(x) for ffn in self.block.ffns]).sum(dim=0)

    def info(self) -> BlockInfo:
        costs = [attention_info(a.attn) for a in self.block.attns]
        return BlockInfo(
            sum(c[0] for c in costs), sum(c[1] for c in costs), linear_macs(self.block.ffns)
        )


_ANATOMIES: dict[type[nn.Module], type[BlockAdapter]] = {
    vit.Block: PreNorm,
    vit.ResPostBlock: PostNorm,
    vit.ParallelScalingBlock: ParallelScaling,
    vit.ParallelThingsBlock: ParallelThings,
}


def open_block(block: nn.Module) -> BlockAdapter:
    """The anatomy of a block of timm's VisionTransformer.

    Raises:
        BackboneError: for a block or an attention that is not known.
    """
    # timm.layers has the attention, too, from 1.0.16 on.
    return open_known(block, _ANATOMIES, (vit.Attention,), "timm's VisionTransformer")
