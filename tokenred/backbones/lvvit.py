"""LV-ViT: timm's blocks between a convolutional stem and a head over all remaining tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from tokenred.backbones.base import PerToken, Tokens
from tokenred.backbones.linear_cost import linear_macs
from tokenred.backbones.vision_transformer import TimmViT, stand_in


class LVViTBackbone(TimmViT):
    """Adapter of `tokenred.models.lvvit.LVViT`."""

    family = "LV-ViT (tokenred.models.lvvit)"

    @classmethod
    def knows(cls, model: nn.Module) -> bool:
        # By name, since this folder does not import `models`.
        name, kinds = ("tokenred.models.lvvit", "LVViT"), type(model).__mro__
        return cls.is_one_of(type(model), [k for k in kinds if (k.__module__, k.__name__) == name])

    @property
    def pooling(self) -> str:
        return "maximum" if self.model.global_pool else "token"

    def head(self, x: Tokens, pre_logits: bool = False, weight: PerToken | None = None) -> Any:
        if weight is not None:
            p = self.model.num_prefix_tokens
            x = torch.cat((x[:, :p], stand_in(x[:, p:], weight[:, p:])), dim=1)
        return self.model.forward_head(x, pre_logits=pre_logits)

    def logits_apart(self, x: Tokens) -> tuple[Tensor, Tensor] | None:
        m = self.model
        apart = m.global_pool and m.num_classes
        return m.forward_head(x, return_tokens=True) if apart else None

    def stem_macs(self, image_size: tuple[int, int] | None = None) -> float:
        stem = self.model.patch_embed
        height, width = image_size or stem.img_size
        rows, columns = self.grid_of(height, width)
        half = sum(conv.weight.numel() for conv in (stem.conv1, stem.conv2, stem.conv3))
        patches = rows * columns * stem.proj.weight.numel()
        return float((height // 2) * (width // 2) * half + patches)

    def _head_macs(self) -> dict[str, Any]:
        # The second classifier reads every image token and no prefix token.
        each = linear_macs(self.model.aux_head)
        return {
            "head_per_token": each,
            "head_fixed": linear_macs(self.model.head) - each * self.model.num_prefix_tokens,
        }
