"""timm's Beit: BEiT and BEiT v2."""

from __future__ import annotations

import torch
from jaxtyping import Float
from timm.models.beit import Beit
from torch import Tensor, nn

from tokenred.backbones.base import Embedded, leaves_alone
from tokenred.backbones.beit_bias import RelativeBias
from tokenred.backbones.beit_blocks import open_block
from tokenred.backbones.eva import EvaBackbone

__all__ = ["BeitBackbone"]

_FORWARD = ("forward_features", "forward_head", "forward")


class BeitBackbone(EvaBackbone):
    """Adapter of ``timm.models.Beit``.

    The relative position bias goes with the tokens: of the bias that timm computes, each image
    keeps the rows and columns of its own tokens. A token that others were merged into has the
    position of its patch; one that stands for no single patch (index −1) the bias of the class
    token.
    """

    family = "timm's Beit (BEiT, BEiT v2)"
    _open = staticmethod(open_block)

    @classmethod
    def knows(cls, model: nn.Module) -> bool:
        return isinstance(model, Beit) and leaves_alone(type(model), Beit, _FORWARD)

    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        m = self.model
        grid = self.grid_of(images.shape[2], images.shape[3])
        patches = m.patch_embed(images)
        x = torch.cat((m.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        x = m.pos_drop(x if m.pos_embed is None else x + m.pos_embed)
        p, total = m.num_prefix_tokens, grid[0] * grid[1]
        index = torch.arange(total, device=x.device).expand(x.shape[0], total)
        shared = None if m.rel_pos_bias is None else m.rel_pos_bias()
        return Embedded(x, index, x[:, p:], grid, RelativeBias(shared, index))
