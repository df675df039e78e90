"""One tiny model of every family, and its blocks as a list that can be changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from tokenred.models.lvvit import LVViT

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3}
TINY |= {"num_heads": 4, "num_classes": 5}


def _hugging_face(form: str) -> Any:
    from tests.backbones.hf_models import FORMS

    return FORMS[form]()


FAMILIES: dict[str, Callable[[], Any]] = {
    "vit": lambda: VisionTransformer(**TINY),
    "distilled": lambda: VisionTransformerDistilled(**TINY),
    "post-norm": lambda: VisionTransformer(**TINY, block_fn=ResPostBlock),
    "parallel": lambda: VisionTransformer(**TINY, block_fn=ParallelScalingBlock),
    "branches": lambda: VisionTransformer(**TINY, block_fn=ParallelThingsBlock),
    "eva": lambda: Eva(**TINY, use_rot_pos_emb=True, init_values=0.5),
    "beit": lambda: Beit(**TINY, use_rel_pos_bias=True, init_values=0.5),
    "lvvit": lambda: LVViT(
        **{k: v for k, v in TINY.items() if k != "patch_size"} | {"img_size": 64}
    ),
    "hf deit": lambda: _hugging_face("DeiTForImageClassification"),
    "hf clip": lambda: _hugging_face("CLIPForImageClassification"),
}


def blocks_of(model: Any) -> nn.ModuleList | nn.Sequential:
    """The container that holds the model's blocks."""
    tower = getattr(model, "deit", getattr(model, "vision_model", model))
    stack = getattr(tower, "encoder", tower)
    return next(
        getattr(stack, name) for name in ("blocks", "layer", "layers") if hasattr(stack, name)
    )


def images_for(model: Any, batch: int = 2) -> Tensor:
    """A batch of the model's size."""
    embed = getattr(model, "patch_embed", None)
    size = (32, 32) if embed is None else embed.img_size
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(2))


def logits_of(output: Any) -> Tensor:
    """What a model gave, as one tensor."""
    if isinstance(output, tuple):
        return torch.cat([x.flatten() for x in output])
    logits: Tensor = getattr(output, "logits", output)
    return logits
