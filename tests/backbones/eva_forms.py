"""timm's Eva in all its forms, small."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from timm.layers import LayerNorm
from timm.models.eva import Eva, EvaAttention
from torch import Tensor

TINY: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
    "num_classes": 5,
}
DROPOUT = dict.fromkeys(
    ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"], 0.3
)
ROTARY = {"use_rot_pos_emb": True}
NO_CLS = {"class_token": False}
# What the model has no argument for is put into its blocks.
SEPARATE, GATED = "qkv_bias_separate", "gated"
FORMS: dict[str, dict[str, Any]] = {
    "no rotary positions": {"init_values": 0.5},
    "rotary": {**ROTARY, "init_values": 0.5},
    "half": {**ROTARY, "rope_rotate_half": True},
    "mixed": {**ROTARY, "rope_type": "mixed"},
    "dinov3": {**ROTARY, "rope_type": "dinov3", "rope_rotate_half": True},
    "mrope": {**ROTARY, "rope_type": "mrope"},
    "other grid": {
        **ROTARY,
        "rope_grid_offset": 1.0,
        "rope_grid_indexing": "xy",
        "ref_feat_shape": 7,
        "use_abs_pos_emb": False,
    },
    "augmented grid": {
        **ROTARY,
        "rope_type": "dinov3",
        "rope_shift_coords": 0.2,
        "rope_jitter_coords": 1.5,
        "rope_rescale_coords": 2.0,
    },
    "EVA-02": {
        **ROTARY,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "scale_attn_inner": True,
        "qkv_fused": False,
    },
    "packed SwiGLU, no bias": {**ROTARY, "swiglu_mlp": True, "qkv_bias": False},
    "post-norm": {**ROTARY, "use_post_norm": True, "scale_attn_inner": True},
    "separate bias": {**ROTARY, SEPARATE: True},
    "gated": {**ROTARY, GATED: True},
    "attention with q/k-norm": {**ROTARY, "attn_type": "rope", "qk_norm": True},
    "grouped queries": {
        **ROTARY,
        "attn_type": "rope",
        "qkv_fused": False,
        "num_kv_heads": (4, 2, 1),
        "init_values": 0.5,
        "attn_only_layer_scale": True,
    },
    "registers": {**ROTARY, "num_reg_tokens": 3, "no_embed_class": True},
    "registers, no CLS": {**ROTARY, "num_reg_tokens": 2, "no_embed_class": True, **NO_CLS},
    "no prefix": {**ROTARY, **NO_CLS, "use_pre_transformer_norm": True},
    "token pooling": {**ROTARY, "global_pool": "token"},
    "avgmax": {**ROTARY, "global_pool": "avgmax"},
    "max": {**ROTARY, "global_pool": "max"},
    "attention pooling": {**ROTARY, "global_pool": "map", "attn_pool_num_heads": 2},
    "no pooling": {**ROTARY, "global_pool": ""},
    "norm before and after pooling": {"use_fc_norm": True, "use_post_transformer_norm": True},
    "wide image": {**ROTARY, "img_size": (16, 48)},
    "one channel": {"in_chans": 1},
    "no classifier": {"num_classes": 0},
}
_EVA = set(inspect.signature(Eva).parameters)
_ATTENTION = set(inspect.signature(EvaAttention).parameters)


def build(name: str, **more: Any) -> Eva:
    form = dict(FORMS[name])
    added = {k: form.pop(k) for k in (SEPARATE, GATED) if k in form}
    if missing := (form.keys() - _EVA) | (added.keys() - _ATTENTION):
        pytest.skip(f"this version of timm has no {', '.join(sorted(missing))}")
    model = Eva(**TINY | form | more)
    for block in model.blocks if added else ():
        drops = {"attn_drop": block.attn.attn_drop.p, "proj_drop": block.attn.proj_drop.p}
        block.attn = EvaAttention(32, 4, norm_layer=LayerNorm, **drops, **added)
    return model


def images_of(model: Eva, batch: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    channels = model.patch_embed.proj.in_channels
    return torch.randn(batch, channels, *model.patch_embed.img_size, generator=draw)
