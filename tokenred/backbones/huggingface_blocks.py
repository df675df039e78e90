"""The blocks of Hugging Face transformers' vision towers, opened at the attention.

A block is opened by its linear layers, under the names that versions 4 and 5 of transformers give
them; the library itself is never imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from tokenred.attention import QKV
from tokenred.backbones.base import BlockAdapter, Empty, PerHead, Tokens
from tokenred.backbones.calls import difference, unwrapped
from tokenred.backbones.linear_cost import linear_macs
from tokenred.core.errors import BackboneError
from tokenred.core.info import BlockInfo
from tokenred.core.state import TokenState

__all__ = ["HuggingFaceBlock", "is_of", "open_block"]

_BLOCKS = (
    *("ViTLayer", "DeiTLayer", "Dinov2Layer", "Dinov2WithRegistersLayer"),
    *("CLIPEncoderLayer", "SiglipEncoderLayer"),
)
_FIRST_NORM = ("layernorm_before", "norm1", "layer_norm1")
_SECOND_NORM = ("layernorm_after", "norm2", "layer_norm2")
# All that a block and its attention may hold: another part would be passed by without a word.
_IN_BLOCK = {
    *_FIRST_NORM,
    *_SECOND_NORM,
    *("attention", "self_attn", "mlp", "intermediate", "output"),
    *("layer_scale1", "layer_scale2", "drop_path", "dropout"),
}
_IN_ATTENTION = {
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj"),
    *("query", "key", "value", "attention", "output"),
}


class HuggingFaceBlock(BlockAdapter):
    """``x += scale1(attn(norm1 x)); x += scale2(mlp(norm2 x))``, with or without the scales."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        signature = inspect.signature(type(block).forward)
        parameters = signature.parameters.values()
        required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        # Masks, which a tower has none of: all that comes after self and the tokens.
        self._masks = (None,) * (len(required) - 2)
        # What the attention gives beside its output differs from version to version, and so it is
        # with some blocks: a hook would find another thing there.
        several = "tuple" in str(signature.return_annotation).lower()
        self.passed_by = (*((block,) if several else ()), self._outer, self._attention)

    def run(self, state: TokenState) -> Tokens | None:
        if self.saves_memory:
            return None  # The loop checkpoints the block, which would do so once more in itself.
        out = self.whole(state.x, *self._masks)
        x: Tensor = out[0] if isinstance(out, tuple) else out  # CLIP's, in transformers 4
        return x

    def must_open(self, fewer: bool) -> bool:
        return self.saves_memory

    @property
    def attentions(self) -> Sequence[nn.Module]:
        return ()

    @property
    def saves_memory(self) -> bool:
        """Whether the user asked for gradient checkpointing, which is for training only."""
        return bool(getattr(self.block, "gradient_checkpointing", False) and self.block.training)

    def heads(self, x: Tokens) -> QKV:
        attn = self._attention
        x = _one_of(self.block, *_FIRST_NORM)(x)
        q, k, v = (
            _one_of(attn, *names)(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for names in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
        )
        drop = _one_of(attn, "attention_dropout", "dropout_prob", "dropout")
        return QKV(
            q, k, v, scale=self.head_dim**-0.5, dropout=float(drop) if attn.training else 0.0
        )

    def after_attention(self, x: Tokens, out: PerHead, heads: QKV) -> Tokens:
        attn = self._outer
        y = out.transpose(1, 2).flatten(2)
        if hasattr(attn, "output"):  # transformers 4
            y = attn.output.dropout(attn.output.dense(y))
        else:
            y = _one_of(attn, "o_proj", "out_proj")(y)
        return x + self._residual(y, "layer_scale1")

    def after_mlp(self, x: Tokens) -> Tokens:
        b = self.block
        y = _one_of(b, *_SECOND_NORM)(x)
        if hasattr(b, "intermediate"):  # transformers 4
            y = b.output.dropout(b.output.dense(b.intermediate(y)))
        else:
            y = b.mlp(y)
        return x + self._residual(y, "layer_scale2")

    def info(self) -> BlockInfo:
        b = self.block
        mlp = [getattr(b, name) for name in ("mlp", "intermediate", "output") if hasattr(b, name)]
        pair = 2 * self.num_heads * self.head_dim
        return BlockInfo(linear_macs(self._outer), pair, sum(linear_macs(part) for part in mlp))

    @property
    def head_dim(self) -> int:
        """``d``."""
        return int(_one_of(self._attention, "head_dim", "attention_head_size"))

    @property
    def num_heads(self) -> int:
        """``h``; transformers 4 can take heads out of a block."""
        query: Any = _one_of(self._attention, "query", "q_proj")
        return int(query.out_features) // self.head_dim

    @property
    def _outer(self) -> Any:
        return _one_of(self.block, "self_attn", "attention")

    @property
    def _attention(self) -> Any:
        # In transformers 4, the projection is beside the attention and not in it.
        return getattr(self._outer, "attention", self._outer)

    def _residual(self, y: Tokens, scale: str) -> Tokens:
        for name in (scale, "dropout", "drop_path"):
            if hasattr(self.block, name):
                y = getattr(self.block, name)(y)
        return y


def open_block(block: nn.Module) -> BlockAdapter:
    """The adapter of a block of a vision tower.

    Raises:
        BackboneError: for a block, an attention or a part of either that is not known.
    """
    inner, closed, checkpointed = unwrapped(block)
    if type(inner) is nn.Identity:
        return Empty(block)
    known = next((kind for kind in type(inner).__mro__ if is_of(kind, _BLOCKS)), None)
    if known is None:
        raise BackboneError(
            f"the block {type(inner).__name__} is not known; known blocks of transformers' vision "
            f"towers: {', '.join(_BLOCKS)}."
        )
    opened = HuggingFaceBlock(inner)
    opened.wrap(block, checkpointed)
    outer, attn = opened._outer, opened._attention
    kinds = ((inner, known), (outer, type(outer)), (attn, type(attn)))
    changes = (difference(module, kind) for module, kind in kinds)
    opened.closed = closed or next(filter(None, changes), "")
    block = inner
    for attention in (outer, attn):
        if type(attention).__module__ != known.__module__:
            raise BackboneError(
                f"the attention {type(attention).__name__} in {type(block).__name__} is not "
                "transformers' own, so it is not known what it does. Wrap the model as it comes."
            )
    _only(block, _IN_BLOCK)
    _only(outer, _IN_ATTENTION)
    _only(attn, _IN_ATTENTION)
    return opened


def is_of(kind: type, names: Iterable[str]) -> bool:
    """Whether a class is transformers' own and has one of these names."""
    return kind.__module__.startswith("transformers.models.") and kind.__name__ in names


def _only(module: nn.Module, known: set[str]) -> None:
    strange = sorted({name for name, _ in module.named_children()} - known)
    if strange:
        raise BackboneError(
            f"{type(module).__name__} holds {', '.join(strange)}, which no version of transformers "
            "did that this adapter was written for. Use a version that the extra tokenred[hf] "
            "allows, or a newer tokenred."
        )


def _one_of(module: Any, *names: str) -> Any:
    """What has one of these names."""
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise BackboneError(
        f"{type(module).__name__} has none of {', '.join(names)}: this version of transformers is "
        "laid out in another way. Use one that the extra tokenred[hf] allows, or a newer tokenred."
    )
