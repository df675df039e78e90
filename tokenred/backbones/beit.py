"""timm's Beit: BEiT and BEiT v2."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.models import beit
from torch import Tensor

from tokenred.attention import QKV
from tokenred.backbones.base import Embedded, Tokens, raster
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.backbones.vit_blocks import PreNorm
from tokenred.core.capture import replace
from tokenred.core.state import TokenState


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """What BEiT's blocks need to know about positions: `TokenState.positions`.

    Attributes:
        shared: ``(h, N0+1, N0+1)``, a bias that all blocks share, or None.
        index: all positions in order, as they entered the first block.
    """

    shared: Float[Tensor, "h N N"] | None
    index: Int[Tensor, "b N0"]

    def of(
        self, own: Float[Tensor, "h N N"] | None, state: TokenState
    ) -> Float[Tensor, "*b h N N"] | None:
        """The shared bias plus the block's own; without ``b`` while all tokens are there."""
        both = [bias for bias in (own, self.shared) if bias is not None]
        if not both:
            return None
        whole = sum(both[1:], both[0])
        return whole if state.index is self.index else bias_at(whole, state.index)


def bias_at(
    bias: Float[Tensor, "h N0_and_1 N0_and_1"], index: Int[Tensor, "b n"]
) -> Float[Tensor, "b h n_and_1 n_and_1"]:
    """The rows and columns of the class token and of the tokens at these positions.

    A token at position −1, which stands for no single patch, gets those of the class token.
    """
    h, side, _ = bias.shape
    places = F.pad(index + 1, (1, 0))
    pairs = places[:, :, None] * side + places[:, None, :]
    taken = bias.reshape(h, side * side).index_select(1, pairs.flatten())
    return taken.view(h, *pairs.shape).transpose(0, 1)


class BeitBlock(PreNorm):
    """``x += γ1 · attn(norm1 x); x += γ2 · mlp(norm2 x)``, biases on the logits (``Block``).

    timm's block adds the bias of the whole grid, so it runs only while all tokens are there, or if
    its only bias is the shared one, which is passed to it.
    """

    def run(self, state: TokenState) -> Tokens | None:
        given: RelativeBias = state.positions
        if self.must_open(fewer=state.index is not given.index):
            return None
        return self.whole(  # type: ignore[no-any-return]
            state.x, shared_rel_pos_bias=given.of(None, state)
        )

    def must_open(self, fewer: bool) -> bool:
        return fewer and self.block.attn.relative_position_bias_table is not None

    def qkv_of(self, state: TokenState, wants: str = "qkv", quiet: bool = False) -> QKV:
        qkv, attn, own = super().qkv_of(state, wants, quiet), self.block.attn, None
        if attn.relative_position_bias_table is not None:
            own = attn._get_rel_pos_bias()[0]
        given: RelativeBias = state.positions
        bias = given.of(own, state)
        return qkv if bias is None else replace(qkv, bias=bias if bias.ndim == 4 else bias[None])


class BeitBackbone(TimmViT):
    """Adapter of ``timm.models.Beit``.

    The relative position bias follows the tokens: each image keeps the rows and columns of its
    remaining tokens from the bias that timm computes. A token that absorbed others keeps the
    position of its patch. A token of no single patch (index −1) gets the bias of the class token.
    """

    family = "timm's Beit (BEiT, BEiT v2)"

    kinds = (beit.Beit,)
    opened_by = ((beit.Block, BeitBlock),)
    attentions = (beit.Attention,)

    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        m = self.model
        grid = self.grid_of(images.shape[2], images.shape[3])
        patches = m.patch_embed(images)
        x = torch.cat((m.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        x = m.pos_drop(x if m.pos_embed is None else x + m.pos_embed)
        index = raster(x, grid)
        shared = None if m.rel_pos_bias is None else m.rel_pos_bias()
        positions = RelativeBias(shared, index)
        return Embedded(x, index, x[:, m.num_prefix_tokens :], grid, positions)
