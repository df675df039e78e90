"""Small models of every family, in all the forms that are adapted."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import LayerNorm, RmsNorm, SwiGLU
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import (
    Attention,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tokenred.models.lvvit import LVViT

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3}
TINY |= {"num_heads": 4, "num_classes": 5}
DROPS = ("drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
DROPOUT = dict.fromkeys(DROPS, 0.3)
NO_CLS = {"class_token": False}
OLD = tuple(map(int, timm.__version__.split(".")[:3])) < (1, 0, 20)
# What timm's models have no argument for is put into their blocks.
GATED, SEPARATE = "gated", "qkv_bias_separate"

VIT: dict[str, dict[str, Any]] = {
    "pre-norm block": {},
    "post-norm block": {"block_fn": ResPostBlock},
    "parallel scaling": {"block_fn": ParallelScalingBlock},
    "parallel scaling, no bias": {"block_fn": ParallelScalingBlock, "qkv_bias": False},
    "parallel scaling, one projection": {
        "block_fn": partial(ParallelScalingBlock, fuse_out_proj=True),
        "qk_norm": True,
    },
    "parallel things": {"block_fn": ParallelThingsBlock},
    "three parallel things": {
        "block_fn": partial(ParallelThingsBlock, num_parallel=3),
        "qk_norm": True,
        "scale_attn_norm": True,
    },
    "q/k-norm": {"qk_norm": True, "norm_layer": RmsNorm},
    "norms in attention and MLP": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "gated": {GATED: True},
    "gated, norms": {GATED: True, "qk_norm": True, "scale_attn_norm": True},
    "gated parallel things": {GATED: True, "block_fn": ParallelThingsBlock},
    "SwiGLU, no bias": {"mlp_layer": SwiGLU, "qkv_bias": False, "proj_bias": False},
    "registers": {"reg_tokens": 4},
    "registers, no CLS": {"reg_tokens": 4, "global_pool": "avg", **NO_CLS},
    "no CLS, avg": {"global_pool": "avg", **NO_CLS},
    "no CLS, avgmax": {"global_pool": "avgmax", **NO_CLS},
    "no CLS, max": {"global_pool": "max", **NO_CLS},
    "no CLS, map": {"global_pool": "map", **NO_CLS},
    "no CLS, prr": {"global_pool": "prr", **NO_CLS},
    "no pooling": {"global_pool": ""},
    "avg over prefix too": {"global_pool": "avg", "reg_tokens": 1, "pool_include_prefix": True},
    "map over prefix too": {"global_pool": "map", "pool_include_prefix": True},
    "position not on CLS": {"no_embed_class": True, "reg_tokens": 2},
    "no position": {"pos_embed": "none"},
    "norm before blocks": {"pre_norm": True},
    "no final norm": {"final_norm": False},
    "norm after pooling": {"fc_norm": True},
    "wide image and patches": {"img_size": (16, 48), "patch_size": (4, 16)},
    "one channel": {"in_chans": 1},
    "no classifier": {"num_classes": 0},
}
ROTARY = {"use_rot_pos_emb": True}
EVA: dict[str, dict[str, Any]] = {
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
    "no prefix": {**ROTARY, **NO_CLS, "use_pre_transformer_norm": True},
    "token pooling": {**ROTARY, "global_pool": "token"},
    "avgmax": {**ROTARY, "global_pool": "avgmax"},
    "attention pooling": {**ROTARY, "global_pool": "map", "attn_pool_num_heads": 2},
    "norm before and after pooling": {"use_fc_norm": True, "use_post_transformer_norm": True},
    "wide image": {**ROTARY, "img_size": (16, 48)},
}
OWN, SHARED = {"use_rel_pos_bias": True}, {"use_shared_rel_pos_bias": True}
BEIT: dict[str, dict[str, Any]] = {
    "own bias": {**OWN, "init_values": 0.5},
    "shared bias": {**SHARED, "img_size": (24, 40)},
    "both": {**OWN, **SHARED, "use_abs_pos_emb": False},
    "no bias": {},
    "no bias of q and v": {**OWN, "qkv_bias": False},
    "SwiGLU": {**OWN, "swiglu_mlp": True, "scale_mlp": True},
    "token pooling": {**OWN, "global_pool": "token"},
}
LVVIT: dict[str, dict[str, Any]] = {"plain": {}, "no classifier": {"num_classes": 0}}

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
_VIT = SIZES | {"image_size": 32, "intermediate_size": 48}
_DINO = SIZES | {"image_size": 32, "mlp_ratio": 2, "layerscale_value": 0.5}
_CLIP = _VIT | {"projection_dim": 12}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "intermediate_size": 16}
HUGGING_FACE: dict[str, dict[str, Any]] = {
    "ViTModel": {},
    "ViTModel without pooler": {},
    "ViTForImageClassification": {"qkv_bias": False, "image_size": (24, 40)},
    "DeiTModel": {},
    "DeiTForImageClassification": {},
    "DeiTForImageClassificationWithTeacher": {},
    "Dinov2Model": {},
    "Dinov2ForImageClassification": {"use_swiglu_ffn": True},
    "Dinov2WithRegistersModel": {"num_register_tokens": 2},
    "Dinov2WithRegistersForImageClassification": {"num_register_tokens": 2},
    "CLIPVisionModel": {},
    "CLIPVisionModelWithProjection": {},
    "CLIPForImageClassification": {},
    "SiglipVisionModel": {},
    "SiglipVisionModel without head": {"vision_use_head": False},
    "SiglipForImageClassification": {},
}
TABLES = {"vit": VIT, "eva": EVA, "beit": BEIT, "lvvit": LVVIT, "hf": HUGGING_FACE}
FORMS = [f"{family}: {name}" for family, table in TABLES.items() for name in table]


def build(form: str, dropout: bool = False, **more: Any) -> Any:
    """A model in a form, in which every weight matters."""
    family, name = form.split(": ")
    options = TABLES[family][name] | more
    if family == "hf":
        return lively(hugging_face(name, dropout, **options))
    if OLD and name == "no position":
        pytest.skip("this timm forgets the CLS token of a model without positions")
    try:
        return lively(_TIMM[family](**(DROPOUT if dropout else {}) | options))
    except (TypeError, AssertionError) as error:
        if not OLD:
            raise
        pytest.skip(f"timm {timm.__version__} has no such model: {error}")


def _vit(**options: Any) -> VisionTransformer:
    plain = {k: v for k, v in options.items() if k != GATED}
    model = VisionTransformer(**TINY | {"depth": 2, "init_values": 0.5} | plain)
    if GATED in options:
        norm = partial(nn.LayerNorm, eps=1e-6)
        norms = {"qk_norm": "qk_norm", "scale_norm": "scale_attn_norm"}
        for owner in (o for block in model.blocks for o in getattr(block, "attns", [block])):
            owner.attn = Attention(
                32, 4, qkv_bias=True, gated=True, attn_drop=owner.attn.attn_drop.p,
                norm_layer=norm, **{k: options[o] for k, o in norms.items() if o in options},
            )  # fmt: skip
    return model


def _eva(**options: Any) -> Eva:
    added = {k: options.pop(k) for k in (SEPARATE, GATED) if k in options}
    known, inside = (inspect.signature(kind).parameters for kind in (Eva, EvaAttention))
    if missing := (options.keys() - known.keys()) | (added.keys() - inside.keys()):
        pytest.skip(f"this version of timm has no {', '.join(sorted(missing))}")
    model = Eva(**TINY | options)
    for block in model.blocks if added else ():
        drops = {"attn_drop": block.attn.attn_drop.p, "proj_drop": block.attn.proj_drop.p}
        block.attn = EvaAttention(32, 4, norm_layer=LayerNorm, **drops, **added)
    return model


def _lvvit(**options: Any) -> LVViT:
    sizes = {k: v for k, v in TINY.items() if k != "patch_size"}
    return LVViT(**sizes | {"img_size": 64} | options)


_TIMM: dict[str, Callable[..., Any]] = {
    "vit": _vit, "eva": _eva, "beit": lambda **o: Beit(**TINY | o), "lvvit": _lvvit,
}  # fmt: skip


def hugging_face(name: str, dropout: bool = False, **options: Any) -> Any:
    """A vision tower of transformers by its name here, with any argument of its configuration."""
    transformers = pytest.importorskip("transformers")
    name, _, without = name.partition(" without ")
    kind = getattr(transformers, name)
    vision = next(k for k in ("Dinov2", "CLIP", "Siglip", "DeiT", "ViT") if name.startswith(k))
    labels = {"num_labels": 5}
    if vision in ("CLIP", "Siglip"):
        options = _CLIP | ({"attention_dropout": 0.3} if dropout else {}) | options
        if name.endswith("Classification"):
            config = getattr(transformers, f"{vision}Config")
            return kind(config(text_config=TEXT, vision_config=options, **labels))
        return kind(getattr(transformers, f"{vision}VisionConfig")(**options))
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.3)
    options = (_DINO if vision == "Dinov2" else _VIT) | (rates if dropout else {}) | options
    config = getattr(
        transformers, f"{'Dinov2WithRegisters' if 'Registers' in name else vision}Config"
    )
    return kind(config(**labels | options), **{"add_pooling_layer": False} if without else {})


class Unfilled(TorchFunctionMode):
    """Leaves new weights as they are: they are filled again anyway, and that takes the time."""

    random = (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, torch.nn.init.trunc_normal_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in self.random else func(*args, **(kwargs or {}))


@torch.no_grad()
def lively(model: Any, seed: int = 0) -> Any:
    """Gives every parameter and BatchNorm statistic a value that matters."""
    draw = torch.Generator().manual_seed(seed)
    scales = ("weight", "gamma", "gamma1", "gamma2", "gamma_1", "gamma_2", "lambda1")
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=draw)
        if p.ndim <= 1:
            # Scales (of norms and LayerScale) around 0.7, biases around 0.
            p.copy_(noise * 0.2 + 0.7 if name.endswith(scales) else noise * 0.2)
        elif p.ndim == 3:  # class token, registers, position embedding, latent
            p.copy_(noise * 0.5)
        else:
            p.copy_(noise / p[0].numel() ** 0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=draw) * 0.1)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    return model


def vit(**options: Any) -> Any:
    """A lively ViT of three blocks on oblong images, in eval mode."""
    return lively(VisionTransformer(**TINY | {"img_size": (32, 24)} | options)).eval()


# One tiny model of every family, for what does not depend on its form.
FAMILIES: dict[str, Callable[[], Any]] = {
    "vit": lambda: VisionTransformer(**TINY),
    "distilled": lambda: VisionTransformerDistilled(**TINY),
    "post-norm": lambda: VisionTransformer(**TINY, block_fn=ResPostBlock),
    "parallel": lambda: VisionTransformer(**TINY, block_fn=ParallelScalingBlock),
    "branches": lambda: VisionTransformer(**TINY, block_fn=ParallelThingsBlock),
    "eva": lambda: Eva(**TINY, use_rot_pos_emb=True, init_values=0.5),
    "beit": lambda: Beit(**TINY, use_rel_pos_bias=True, init_values=0.5),
    "lvvit": _lvvit,
    "hf deit": lambda: hugging_face("DeiTForImageClassification"),
    "hf clip": lambda: hugging_face("CLIPForImageClassification"),
}
_TOWERS = ("vit", "deit", "dinov2", "dinov2_with_registers", "vision_model")


def tower_of(model: Any) -> Any:
    """The part of a Hugging Face model that gives ``last_hidden_state``; any other model itself."""
    return next((getattr(model, n) for n in _TOWERS if hasattr(model, n)), model)


def blocks_of(model: Any) -> nn.ModuleList | nn.Sequential:
    """The container that holds the model's blocks."""
    stack = getattr(tower_of(model), "encoder", tower_of(model))
    return next(
        getattr(stack, name) for name in ("blocks", "layer", "layers") if hasattr(stack, name)
    )


def images_for(model: Any, batch: int = 2) -> Tensor:
    """A batch of the model's size, channels and type."""
    size, channels = getattr(tower_of(model), "config", None), 3
    if size is not None and hasattr(size, "image_size"):
        size = size.image_size
    else:
        size = model.patch_embed.img_size
        channels = next(p for p in model.patch_embed.parameters() if p.ndim == 4).shape[1]
    height, width = (size, size) if isinstance(size, int) else size
    draw = torch.Generator().manual_seed(2)
    dtype = next(model.parameters()).dtype
    return torch.randn(batch, channels, height, width, generator=draw).to(dtype)


def answer(output: Any) -> Tensor:
    """What a model gave, as one tensor: of an output object, that which a reduced model gives."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple):
        return torch.cat([x.flatten() for x in output])
    names = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
    found = (getattr(output, name, None) for name in names)
    tensor: Tensor = next(t for t in found if t is not None)
    return tensor
