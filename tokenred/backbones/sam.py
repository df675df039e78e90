"""timm's VisionTransformerSAM: the encoder of Segment Anything, and ViTDet's."""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from timm.layers import resample_abs_pos_embed_nhwc
from timm.models import vision_transformer_sam as sam
from torch import Tensor, nn

from tokenred.backbones.base import BlockAdapter, Embedded, PerToken, Tokens, raster
from tokenred.backbones.linear_cost import linear_macs
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.backbones.vit_blocks import head_shape
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.core.state import TokenState
from tokenred.core.tensors import weighted_mean


class SamBlock(BlockAdapter):
    """``x += ls1(attn(norm1 x)); x += ls2(mlp(norm2 x))`` on a map, attention in windows."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self._one_grid = self.block.attn.rope is not None and not self.block.window_size
        why = "its rotary positions fit one grid" if self._one_grid else "it takes whole maps"
        self.closed = self.closed or why

    def must_open(self, fewer: bool) -> bool:
        return fewer and self._one_grid

    def run(self, state: TokenState) -> Tokens:
        assert state.token_grid is not None
        y: Tensor = self.whole(state.x.unflatten(1, state.token_grid))
        return y.flatten(1, 2)

    def info(self) -> BlockInfo:
        attn, (h, d) = self.block.attn, head_shape(self.block.attn)
        return BlockInfo(
            linear_macs(attn),
            2 * h * d,
            linear_macs(self.block.mlp),
            window=self.block.window_size,
            attention_per_line=h * d if attn.use_rel_pos else 0,
        )


class SamBackbone(TimmViT):
    """Adapter of ``timm.models.VisionTransformerSAM``.

    The grid is cut into windows, so the tokens have to stay a rectangle (`Selector.grid_after`).
    timm's own blocks run on a smaller rectangle and fit their relative positions to it. Instead of
    a norm for each token there is a neck for the whole map, which ``forward_features`` returns.
    """

    family = "timm's VisionTransformerSAM (SAM, ViTDet)"

    kinds = (sam.VisionTransformerSAM,)
    opened_by = ((sam.Block, SamBlock),)
    attentions = (sam.Attention,)

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, needs_grid=True)

    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        m = self.model
        grid = self.grid_of(images.shape[2], images.shape[3])
        x = m.patch_embed(images)
        if m.pos_embed is not None:
            x = x + resample_abs_pos_embed_nhwc(m.pos_embed, grid)
        x = m.norm_pre(m.patch_drop(m.pos_drop(x))).flatten(1, 2)
        return Embedded(x, raster(x, grid), x, grid)

    def norm(self, x: Tokens) -> Tokens:
        return x

    @property
    def neck(self) -> nn.Module:
        return self.model.neck  # type: ignore[no-any-return]

    @property
    def pooling(self) -> str:
        return "average" if self.model.global_pool == "avg" else "unknown"

    def head(self, x: Tensor, pre_logits: bool = False, weight: PerToken | None = None) -> Any:
        if weight is not None:
            x = weighted_mean(x.flatten(2).transpose(1, 2), weight).transpose(1, 2)[..., None]
        return self.model.forward_head(x, pre_logits=pre_logits)

    @property
    def _dynamic(self) -> bool:
        return not self.model.patch_embed.strict_img_size

    def _head_macs(self) -> dict[str, Any]:
        kernels = (conv.weight for conv in self.neck.modules() if isinstance(conv, nn.Conv2d))
        each = sum(weight.numel() for weight in kernels)
        return {"head_per_token": each, "head_fixed": linear_macs(self.model.head)}
