"""The blocks of timm's VisionTransformer, opened at the attention, and helpers for others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from timm.models import vision_transformer as vit
from torch import Tensor, nn

from tokenred.attention import QKV
from tokenred.backbones.base import BlockAdapter, Empty, PerHead, Tokens
from tokenred.backbones.hooks import Call, call_of, difference, has_hooks, known_base, unwrapped
from tokenred.backbones.linear_cost import linear_macs
from tokenred.core.errors import BackboneError
from tokenred.core.info import BlockInfo
from tokenred.core.state import TokenState


def attention_qkv(
    attn: Any, x: Tokens, rope: Tensor | None = None, wants: str = "qkv", quiet: bool = False
) -> QKV:
    """Queries, keys and values of any of timm's attentions, and its gate if it has one.

    ``rope`` rotates the image tokens; prefix tokens have no position. The other arguments are those
    of `BlockAdapter.qkv_of`.
    """
    call = None if quiet else call_of(attn)
    x, calls = (x, ()) if call is None else (call.enter(x), (call,))
    if attn.qkv is None:
        q, k, v = attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
        width = q.shape[-1] // attn.num_heads
        q, k, v = (t.unflatten(-1, (-1, width)).transpose(1, 2) for t in (q, k, v))
    else:
        q, k, v = _fused(attn, x, wants)
    if wants != "v" and hasattr(attn, "q_norm"):  # in Eva since timm 1.0.16
        q, k = attn.q_norm(q), attn.k_norm(k)
    if wants != "v" and rope is not None:
        q, k = (_rotated(attn, t, rope).type_as(v) for t in (q, k))
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        # Grouped queries: neighbours share keys and values. Engines need as many of each.
        k, v = (t.repeat_interleave(groups, dim=1) for t in (k, v))
    gate = getattr(attn, "gate", None)
    return QKV(
        q,
        k,
        v,
        scale=attn.scale,
        dropout=attn.attn_drop.p if attn.training else 0.0,
        carry=() if gate is None else (gate(x).sigmoid(),),
        calls=calls,
        drop=_watched_dropout(attn),
    )


def _fused(attn: Any, x: Tokens, wants: str = "qkv") -> Sequence[Tensor]:
    """Queries, keys and values from one product; those not in ``wants`` only have their shape."""
    if getattr(attn, "q_bias", None) is None:
        plain = type(attn.qkv) is nn.Linear and "forward" not in attn.qkv.__dict__
        if wants == "qkv" or not plain or call_of(attn.qkv) is not None:
            return _by_head(attn.qkv(x), 3, attn.num_heads)
        weight, bias = attn.qkv.weight, attn.qkv.bias
        before_v = weight.shape[0] // 3 * 2
        at = slice(before_v) if wants == "qk" else slice(before_v, None)
        product = F.linear(x, weight[at], None if bias is None else bias[at])
        parts = _by_head(product, len(wants), attn.num_heads)
        return (*parts, parts[-1], parts[-1])[:3]
    bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
    if getattr(attn, "qkv_bias_separate", False):
        return _by_head(attn.qkv(x) + bias, 3, attn.num_heads)
    return _by_head(F.linear(x, attn.qkv.weight, bias), 3, attn.num_heads)


def _by_head(product: Tensor, parts: int, heads: int) -> Sequence[PerHead]:
    """Split a product into its parts, and each part into heads."""
    b, n, width = product.shape
    return (
        product.view(b, n, parts, heads, width // (parts * heads)).permute(2, 0, 3, 1, 4).unbind()
    )


def _rotated(attn: Any, x: PerHead, rope: Tensor) -> PerHead:
    # timm before 1.0.20 has a single layout and no argument for it.
    layout = {"half": True} if getattr(attn, "rotate_half", False) else {}
    p = attn.num_prefix_tokens
    return torch.cat((x[:, :, :p], apply_rot_embed_cat(x[:, :, p:], rope, **layout)), dim=2)


def _watched_dropout(attn: Any) -> nn.Module | None:
    """The map's dropout, if it is not a plain ``nn.Dropout`` or has hooks.

    None otherwise, and if the model's own fused attention would never call it.
    """
    drop = attn.attn_drop
    if getattr(attn, "fused_attn", True):
        return None
    plain = type(drop) in (nn.Dropout, nn.Identity) and "forward" not in drop.__dict__
    return None if plain and not has_hooks(drop) else drop


def _attention_output(
    attn: Any, out: PerHead, gate: tuple[Tensor, ...], calls: tuple[Call, ...] = ()
) -> Any:
    x = out.transpose(1, 2).flatten(2)
    if hasattr(attn, "norm"):  # since timm 1.0.16
        x = attn.norm(x)
    x = attn.proj_drop(attn.proj(x * gate[0] if gate else x))
    return calls[0].leave(x) if calls else x


def head_shape(module: nn.Module) -> tuple[int, int]:
    """``h``, over all attentions together, and ``d``, which not every timm stores."""
    attns: Any = [m for m in module.modules() if hasattr(m, "num_heads")]
    first = attns[0]
    width = getattr(first, "head_dim", None)
    width = first.proj.in_features // first.num_heads if width is None else width
    return sum(attn.num_heads for attn in attns), int(width)


class PreNorm(BlockAdapter):
    """``x += ls1(attn(norm1 x)); x += ls2(mlp(norm2 x))`` (``Block``, also in Eva and BEiT)."""

    def qkv_of(self, state: TokenState, wants: str = "qkv", quiet: bool = False) -> QKV:
        x, rope = self._normed(state.x), self._rope(state)
        return attention_qkv(self.block.attn, x, rope, wants, quiet)

    def _normed(self, x: Tokens) -> Tokens:
        return self.block.norm1(x)  # type: ignore[no-any-return]

    def _rope(self, state: TokenState) -> Tensor | None:
        return None

    def after_attention(self, x: Tokens, out: PerHead, qkv: QKV) -> Tokens:
        y = _attention_output(self.block.attn, out, qkv.carry, qkv.calls)
        return x + self._residual(y, 1)

    def after_mlp(self, x: Tokens) -> Tokens:
        return x + self._residual(self.block.mlp(self.block.norm2(x)), 2)

    def _residual(self, y: Tokens, which: int) -> Tokens:
        """Scaled by a layer or, in Eva and BEiT, by a parameter that may be missing."""
        b = self.block
        scale, gamma = getattr(b, f"ls{which}", None), getattr(b, f"gamma_{which}", None)
        if scale is not None:
            y = scale(y)
        elif gamma is not None:
            y = gamma * y
        return getattr(b, f"drop_path{which}")(y)  # type: ignore[no-any-return]

    def info(self) -> BlockInfo:
        attn, (h, d) = self.block.attn, head_shape(self.block.attn)
        return BlockInfo(linear_macs(attn), 2 * h * d, linear_macs(self.block.mlp))


class PostNorm(PreNorm):
    """``x += norm1(attn(x)); x += norm2(mlp(x))`` (``ResPostBlock``, ``EvaBlockPostNorm``)."""

    def _normed(self, x: Tokens) -> Tokens:
        return x

    def after_mlp(self, x: Tokens) -> Tokens:
        return x + self._residual(self.block.mlp(x), 2)

    def _residual(self, y: Tokens, which: int) -> Tokens:
        normed = getattr(self.block, f"norm{which}")(y)
        return getattr(self.block, f"drop_path{which}")(normed)  # type: ignore[no-any-return]


class ParallelScaling(BlockAdapter):
    """Attention and MLP side by side, one projection in (``ParallelScalingBlock``)."""

    def heads(self, x: Tokens) -> QKV:
        b = self.block
        y, zeros = b.in_proj(b.in_norm(x)), getattr(b, "qkv_bias", None)
        if zeros is not None:  # timm 1.0.15 adds both along the whole projection
            y = y + torch.cat((zeros, b.mlp_bias))
        mlp, q, k, v = torch.split(y, b.in_split, dim=-1)
        if b.mlp_bias is not None and zeros is None:
            mlp = mlp + b.mlp_bias
        q, k, v = (t.view(*x.shape[:2], b.num_heads, b.head_dim) for t in (q, k, v))
        return QKV(
            b.q_norm(q).transpose(1, 2),
            b.k_norm(k).transpose(1, 2),
            v.transpose(1, 2),
            scale=b.scale,
            dropout=b.attn_drop.p if b.training else 0.0,
            carry=(mlp,),
            drop=_watched_dropout(b),
        )

    def after_attention(self, x: Tokens, out: PerHead, qkv: QKV) -> Tokens:
        b = self.block
        attended = out.transpose(1, 2).flatten(2)
        mlp = b.mlp_drop(b.mlp_act(qkv.carry[0]))
        # timm before 1.0.16 has only separate projections, one of them under another name.
        if getattr(b, "out_proj", None) is not None:
            y = b.out_proj(torch.cat((attended, mlp), dim=-1))
        else:
            y = b.attn_out_proj(attended) + b.mlp_out_proj(mlp)
        residual: Tensor = b.drop_path(b.ls(y))
        return x + residual

    def after_mlp(self, x: Tokens) -> Tokens:
        return x

    def info(self) -> BlockInfo:
        b = self.block
        width = b.num_heads * b.head_dim
        attention = 4 * width * width
        return BlockInfo(attention, 2 * width, linear_macs(b) - attention, parallel=True)


class ParallelThings(BlockAdapter):
    """Several attentions side by side, then several MLPs (``ParallelThingsBlock``).

    Their heads are concatenated, so a statistic covers all heads of the block.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.passed_by = (*self.passed_by, *self.block.attns)

    @property
    def attentions(self) -> Sequence[nn.Module]:
        return [a.attn for a in self.block.attns]

    def qkv_of(self, state: TokenState, wants: str = "qkv", quiet: bool = False) -> QKV:
        each = [attention_qkv(a.attn, a.norm(state.x), quiet=quiet) for a in self.block.attns]
        drops = [a.attn.attn_drop for a in self.block.attns]

        def drop(attention: Tensor) -> Tensor:
            maps = attention.chunk(len(drops), dim=1)
            return torch.cat([d(m) for d, m in zip(drops, maps, strict=True)], dim=1)

        q, k, v = (torch.cat(t, dim=1) for t in zip(*((h.q, h.k, h.v) for h in each), strict=True))
        return QKV(
            q,
            k,
            v,
            scale=each[0].scale,
            dropout=each[0].dropout,
            carry=tuple(gate for h in each for gate in h.carry),
            calls=tuple(h.calls for h in each),
            drop=drop if any(h.drop for h in each) else None,
        )

    def after_attention(self, x: Tokens, out: PerHead, qkv: QKV) -> Tokens:
        branches = list(self.block.attns)
        outs = out.chunk(len(branches), dim=1)
        gates: list[tuple[Tensor, ...]] = [(g,) for g in qkv.carry] or [()] * len(branches)
        done = [
            a.drop_path(a.ls(_attention_output(a.attn, o, g, calls)))
            for a, o, g, calls in zip(branches, outs, gates, qkv.calls, strict=True)
        ]
        return x + torch.stack(done).sum(dim=0)

    def after_mlp(self, x: Tokens) -> Tokens:
        return x + torch.stack([ffn(x) for ffn in self.block.ffns]).sum(dim=0)

    def info(self) -> BlockInfo:
        h, d = head_shape(self.block)
        attention = sum(linear_macs(a.attn) for a in self.block.attns)
        return BlockInfo(attention, 2 * h * d, linear_macs(self.block.ffns))


Openers: TypeAlias = Sequence[tuple[type[nn.Module], type[BlockAdapter]]]

VIT_BLOCKS: Openers = (
    (vit.Block, PreNorm),
    (vit.ResPostBlock, PostNorm),
    (vit.ParallelScalingBlock, ParallelScaling),
    (vit.ParallelThingsBlock, ParallelThings),
)


def open_known(
    block: nn.Module, openers: Openers, attentions: Sequence[type[nn.Module]], family: str
) -> BlockAdapter:
    """The adapter of a block whose attentions are all of the classes ``attentions``.

    A block that was wrapped, patched or overridden can still run whole; `BlockAdapter.closed` then
    says why it cannot be opened.

    Raises:
        BackboneError: for an unknown block or attention.
    """
    inner = unwrapped(block)[0]
    if type(inner) is nn.Identity:
        return Empty(block)
    blocks = dict(openers)
    known = known_base(type(inner), blocks)
    if known is None:
        raise BackboneError(
            f"the block {type(inner).__name__} is not known; known blocks of {family}: "
            f"{_names(blocks)}."
        )
    opened = blocks[known](block)
    opened.closed = opened.closed or difference(inner, known)
    for name, module in inner.named_modules():
        if name.split(".")[-1] != "attn":
            continue
        attention = known_base(type(module), attentions)
        if attention is None:
            raise BackboneError(
                f"the attention {type(module).__name__} in {type(inner).__name__} is not known "
                "(differential attention subtracts two maps, which have no single row of "
                f"statistics); known: timm's {_names(attentions)}."
            )
        if changed := difference(module, attention):
            opened.closed = opened.closed or f"in its {name}, {changed}"
    return opened


def _names(classes: Iterable[type[nn.Module]]) -> str:
    return ", ".join(sorted(known.__name__ for known in classes))
