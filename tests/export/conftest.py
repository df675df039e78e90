"""Tiny models whose logits depend on which tokens stay."""

from collections.abc import Callable

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

Make = Callable[..., nn.Module]
OPTIONS = {"cls": {}, "no cls": {"class_token": False, "global_pool": "avg"}, "distilled": {}}


@pytest.fixture
def vit() -> Make:
    """A model by kind: 16 image tokens, 2 blocks."""

    def make(kind: str = "cls", **options: object) -> nn.Module:
        torch.manual_seed(0)
        form = VisionTransformerDistilled if kind == "distilled" else VisionTransformer
        wanted = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
        model = form(num_classes=5, **wanted | OPTIONS[kind] | options)
        # timm's own start is so small that all tokens look alike.
        for weight in model.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.2)
        return model.eval()

    return make
