"""timm's Eva: EVA, EVA-02, rotary ViTs, DINOv3, Perception Encoder and their kin."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.models.eva import Eva
from torch import Tensor, nn

from tokenred.backbones.base import Embedded, leaves_alone
from tokenred.backbones.eva_blocks import open_block, split_width
from tokenred.backbones.eva_rotary import Rotary
from tokenred.backbones.vision_transformer import FORWARD, TimmViT

__all__ = ["EvaBackbone"]


class EvaBackbone(TimmViT):
    """Adapter of ``timm.models.Eva``.

    Rotary positions go with the tokens: a token that stays keeps the position of its patch, also
    when others were merged into it. A token that stands for no single patch (index −1, EViT's
    fused token) is not turned, like the prefix.
    """

    family = "timm's Eva (EVA, EVA-02, rotary ViT, DINOv3, Perception Encoder)"
    _open = staticmethod(open_block)

    @classmethod
    def knows(cls, model: nn.Module) -> bool:
        return isinstance(model, Eva) and leaves_alone(type(model), Eva, FORWARD)

    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        m = self.model
        grid = self.grid_of(images.shape[2], images.shape[3])
        p, total = m.num_prefix_tokens, grid[0] * grid[1]
        if m.patch_drop is not None and m.training:
            # The positions of all patches are wanted, so the dropout is left for the end.
            full, rope = type(m)._pos_embed(_Undropped(m), m.patch_embed(images))
            x, kept = m.patch_drop(full)
            positions = None if rope is None else Rotary.of(rope, None)
            return Embedded(self._normed(x), kept, self._normed(full)[:, p:], grid, positions)
        x, rope = m._pos_embed(m.patch_embed(images))
        x = self._normed(x)
        index = torch.arange(total, device=x.device).expand(x.shape[0], total)
        positions = None if rope is None else Rotary.of(rope, index)
        return Embedded(x, index, x[:, p:], grid, positions)

    def _normed(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        # timm before 1.0.16 has no such norm.
        norm = getattr(self.model, "norm_pre", None)
        return x if norm is None else norm(x)

    def _example_heads(self) -> tuple[int, int]:
        attn: Any = self.first_attending.block.attn
        return attn.num_heads, split_width(attn)


class _Undropped:
    """A model as it is without patch dropout, for its own embedding to look at."""

    patch_drop = None

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
