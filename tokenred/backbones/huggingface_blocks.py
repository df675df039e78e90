"""The blocks of Hugging Face transformers' vision towers, opened at the attention.

A block is opened through its linear layers, under the names that they have in transformers 4 and 5;
the library itself is never imported.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from tokenred.attention import QKV
from tokenred.backbones.base import BlockAdapter, Empty, PerHead, Tokens
from tokenred.backbones.hooks import difference, unwrapped
from tokenred.backbones.linear_cost import linear_macs
from tokenred.core.errors import BackboneError
from tokenred.core.info import BlockInfo
from tokenred.core.state import TokenState

_BLOCKS = (
    *("ViTLayer", "DeiTLayer", "Dinov2Layer", "Dinov2WithRegistersLayer"),
    *("CLIPEncoderLayer", "SiglipEncoderLayer"),
)
_FIRST_NORM = ("layernorm_before", "norm1", "layer_norm1")
_SECOND_NORM = ("layernorm_after", "norm2", "layer_norm2")
# All children that a block and its attention may have; others would be silently skipped.
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
        signature = inspect.signature(type(self.block).forward)
        parameters = signature.parameters.values()
        required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        # All required arguments after self and the tokens are masks, which a tower does not use.
        self._masks = (None,) * (len(required) - 2)
        # What the attention, and some blocks, return besides their output differs between
        # versions, so a hook would get something unexpected.
        several = "tuple" in str(signature.return_annotation).lower()
        inside = (*((self.block,) if several else ()), self.outer, self.attention)
        self.passed_by = (*inside, *self.passed_by)

    def run(self, state: TokenState) -> Tokens | None:
        if self.must_open(fewer=False):
            return None  # The loop checkpoints the block, which would checkpoint itself again.
        out = self.whole(state.x, *self._masks)
        x: Tensor = out[0] if isinstance(out, tuple) else out  # CLIP in transformers 4
        return x

    def must_open(self, fewer: bool) -> bool:
        """Whether gradient checkpointing is on; it applies only in training."""
        return bool(getattr(self.block, "gradient_checkpointing", False) and self.block.training)

    @property
    def attentions(self) -> Sequence[nn.Module]:
        return ()

    def heads(self, x: Tokens) -> QKV:
        attn = self.attention
        x = _one_of(self.block, *_FIRST_NORM)(x)
        q, k, v = (
            _one_of(attn, *names)(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for names in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
        )
        drop = _one_of(attn, "attention_dropout", "dropout_prob", "dropout")
        return QKV(
            q, k, v, scale=self.head_dim**-0.5, dropout=float(drop) if attn.training else 0.0
        )

    def after_attention(self, x: Tokens, out: PerHead, qkv: QKV) -> Tokens:
        attn, y = self.outer, out.transpose(1, 2).flatten(2)
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
        mlp = [getattr(self.block, n, None) for n in ("mlp", "intermediate", "output")]
        pair = 2 * self.num_heads * self.head_dim
        return BlockInfo(linear_macs(self.outer), pair, sum(linear_macs(m) for m in mlp if m))

    @property
    def head_dim(self) -> int:
        """``d``."""
        return int(_one_of(self.attention, "head_dim", "attention_head_size"))

    @property
    def num_heads(self) -> int:
        """``h``, from the weights, because transformers 4 can prune heads."""
        return int(_one_of(self.attention, "query", "q_proj").out_features) // self.head_dim

    @property
    def outer(self) -> Any:
        """The attention with its projection."""
        return _one_of(self.block, "self_attn", "attention")

    @property
    def attention(self) -> Any:
        """The module with the query, key and value layers: a child of `outer` in transformers 4."""
        return getattr(self.outer, "attention", self.outer)

    def _residual(self, y: Tokens, scale: str) -> Tokens:
        for name in (scale, "dropout", "drop_path"):
            if hasattr(self.block, name):
                y = getattr(self.block, name)(y)
        return y


def open_block(block: nn.Module) -> BlockAdapter:
    """The adapter of a block of a vision tower; unknown modules in it are refused."""
    inner = unwrapped(block)[0]
    if type(inner) is nn.Identity:
        return Empty(block)
    known = next((kind for kind in type(inner).__mro__ if is_of(kind, _BLOCKS)), None)
    if known is None:
        raise BackboneError(
            f"the block {type(inner).__name__} is not known; known blocks of transformers' vision "
            f"towers: {', '.join(_BLOCKS)}."
        )
    opened = HuggingFaceBlock(block)
    outer, attn = opened.outer, opened.attention
    for module, kind in ((inner, known), (outer, type(outer)), (attn, type(attn))):
        opened.closed = opened.closed or difference(module, kind)
    for attention in (outer, attn):
        if type(attention).__module__ != known.__module__:
            raise BackboneError(
                f"the attention {type(attention).__name__} in {type(inner).__name__} is not "
                "transformers' own, so what it computes is unknown. Wrap the unmodified model."
            )
    for module, parts in ((inner, _IN_BLOCK), (outer, _IN_ATTENTION), (attn, _IN_ATTENTION)):
        _check_parts(module, parts)
    return opened


def is_of(kind: type, names: Iterable[str]) -> bool:
    """Whether a class is transformers' own and has one of these names."""
    return kind.__module__.startswith("transformers.models.") and kind.__name__ in names


def _check_parts(module: nn.Module, known: set[str]) -> None:
    strange = sorted({name for name, _ in module.named_children()} - known)
    if strange:
        raise BackboneError(
            f"{type(module).__name__} has unknown children: {', '.join(strange)}. Use a version of "
            "transformers that the extra tokenred[hf] allows, or a newer tokenred."
        )


def _one_of(module: Any, *names: str) -> Any:
    """The attribute with the first of these names that exists."""
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise BackboneError(
        f"{type(module).__name__} has none of {', '.join(names)} in this version of transformers. "
        "Use one that the extra tokenred[hf] allows, or a newer tokenred."
    )
