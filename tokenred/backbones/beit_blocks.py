"""The blocks of timm's Beit, opened at the attention."""

from __future__ import annotations

from jaxtyping import Float
from timm.models import beit
from torch import Tensor, nn

from tokenred.attention import QKV
from tokenred.backbones.base import BlockAdapter, open_known
from tokenred.backbones.beit_bias import RelativeBias, bias_at
from tokenred.backbones.calls import entered
from tokenred.backbones.eva_blocks import EvaPreNorm, projected
from tokenred.backbones.vit_blocks import watched_dropout
from tokenred.core.capture import replace
from tokenred.core.state import TokenState

__all__ = ["BeitBlock", "open_block"]


class BeitBlock(EvaPreNorm):
    """``x += γ1 · attn(norm1 x); x += γ2 · mlp(norm2 x)``, biases on the logits (``Block``).

    timm's block adds the bias of the whole grid, so it runs only while all tokens are there, or
    where its only bias is the shared one, which it is given.
    """

    def run(self, state: TokenState) -> Float[Tensor, "b N c"] | None:
        given = state.positions
        if not isinstance(given, RelativeBias):
            return self.whole(state.x)  # type: ignore[no-any-return]
        shared = given.shared
        if not given.untouched(state):
            if self.must_open(fewer=True):
                return None
            shared = None if shared is None else bias_at(shared, state.index)
        return self.whole(state.x, shared_rel_pos_bias=shared)  # type: ignore[no-any-return]

    def must_open(self, fewer: bool) -> bool:
        return fewer and self.block.attn.relative_position_bias_table is not None

    def heads(self, x: Float[Tensor, "b N c"]) -> QKV:
        attn = self.block.attn
        x, calls = entered(attn, self._attention_input(x), self.listens)
        return QKV(
            *projected(attn, x),
            attn.scale,
            dropout=attn.attn_drop.p if attn.training else 0.0,
            calls=calls,
            drop=watched_dropout(attn),
        )

    def qkv_of(self, state: TokenState) -> QKV:
        heads, given = self.heads(state.x), state.positions
        attn, bias = self.block.attn, None
        if attn.relative_position_bias_table is not None:
            bias = attn._get_rel_pos_bias()[0]
        if isinstance(given, RelativeBias) and given.shared is not None:
            bias = given.shared if bias is None else bias + given.shared
        if bias is None:
            return heads
        whole = not isinstance(given, RelativeBias) or given.untouched(state)
        return replace(heads, bias=bias[None] if whole else bias_at(bias, state.index))


def open_block(block: nn.Module) -> BlockAdapter:
    """The anatomy of a block of timm's Beit.

    Raises:
        BackboneError: for a block or an attention that is not known.
    """
    return open_known(block, {beit.Block: BeitBlock}, (beit.Attention,), "timm's Beit")
