"""Small vision towers of Hugging Face transformers, in all the forms that are adapted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr

pytest.importorskip("transformers")

from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

__all__ = [
    "FORMS",
    "NOTHING",
    "SOME",
    "agree",
    "answer",
    "gradients",
    "images_for",
    "matter",
    "tower_of",
    "with_dropout",
]

NOTHING = tr.strategy("gtp", P=0)
SOME = tr.strategy("gtp", P=3, M=4)
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
SQUARE = SIZES | {"image_size": 32}
VIT = SQUARE | {"intermediate_size": 48}
DINO = SQUARE | {"mlp_ratio": 2, "layerscale_value": 0.5}
REGISTERS = DINO | {"num_register_tokens": 2}
CLIP = VIT | {"projection_dim": 12}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "intermediate_size": 16}
FIVE = {"num_labels": 5}

FORMS: dict[str, Callable[..., Any]] = {
    "ViTModel": lambda **o: ViTModel(ViTConfig(**VIT | o)),
    "ViTModel without pooler": lambda **o: ViTModel(ViTConfig(**VIT | o), add_pooling_layer=False),
    "ViTForImageClassification": lambda **o: ViTForImageClassification(
        ViTConfig(**VIT | FIVE | {"qkv_bias": False, "image_size": (24, 40)} | o)
    ),
    "DeiTModel": lambda **o: DeiTModel(DeiTConfig(**VIT | o)),
    "DeiTForImageClassification": lambda **o: DeiTForImageClassification(
        DeiTConfig(**VIT | FIVE | o)
    ),
    "DeiT with teacher": lambda **o: DeiTForImageClassificationWithTeacher(
        DeiTConfig(**VIT | FIVE | o)
    ),
    "Dinov2Model": lambda **o: Dinov2Model(Dinov2Config(**DINO | o)),
    "Dinov2ForImageClassification": lambda **o: Dinov2ForImageClassification(
        Dinov2Config(**DINO | FIVE | {"use_swiglu_ffn": True} | o)
    ),
    "Dinov2WithRegistersModel": lambda **o: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**REGISTERS | o)
    ),
    "Dinov2WithRegistersForImageClassification": lambda **o: (
        Dinov2WithRegistersForImageClassification(Dinov2WithRegistersConfig(**REGISTERS | FIVE | o))
    ),
    "CLIPVisionModel": lambda **o: CLIPVisionModel(CLIPVisionConfig(**CLIP | o)),
    "CLIPVisionModelWithProjection": lambda **o: CLIPVisionModelWithProjection(
        CLIPVisionConfig(**CLIP | o)
    ),
    "CLIPForImageClassification": lambda **o: CLIPForImageClassification(
        CLIPConfig(text_config=TEXT, vision_config=CLIP | o, **FIVE)
    ),
    "SiglipVisionModel": lambda **o: SiglipVisionModel(SiglipVisionConfig(**CLIP | o)),
    "SiglipVisionModel without head": lambda **o: SiglipVisionModel(
        SiglipVisionConfig(**CLIP | {"vision_use_head": False} | o)
    ),
    "SiglipForImageClassification": lambda **o: SiglipForImageClassification(
        SiglipConfig(text_config=TEXT, vision_config=CLIP | o, **FIVE)
    ),
}
_TOWERS = ("vit", "deit", "dinov2", "dinov2_with_registers", "vision_model")


def with_dropout(form: str, rate: float) -> Any:
    """A form with each kind of dropout that its family has."""
    if form.startswith(("CLIP", "Siglip")):
        return FORMS[form](attention_dropout=rate)
    rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
    more = {"drop_path_rate": rate} if form.startswith("Dinov2") else {}
    return FORMS[form](**rates, **more)


def tower_of(model: Any) -> Any:
    """The part of a model that gives ``last_hidden_state``."""
    return next((getattr(model, n) for n in _TOWERS if hasattr(model, n)), model)


def answer(outputs: Any) -> Tensor:
    """The one tensor of a model's outputs that a reduced model gives."""
    names = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
    found = (getattr(outputs, name, None) for name in names)
    tensor: Tensor = next(t for t in found if t is not None)
    return tensor


def images_for(model: Any, batch: int = 2) -> Tensor:
    """Images of the model's size."""
    size = tower_of(model).config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def matter(model: Any) -> Any:
    """Gives LayerScale, which has a name of its own here, values that matter."""
    draw = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if name.endswith("lambda1"):
            p.copy_(torch.rand(p.shape, generator=draw) + 0.5)
    return model


def gradients(model: nn.Module, output: Tensor) -> dict[str, Tensor]:
    """Of each parameter that has one, for a loss that weighs each output in its own way."""
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype)
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad((output.flatten() * weights).sum(), parameters, allow_unused=True)
    return {n: g for n, g in zip(names, grads, strict=True) if g is not None}


def agree(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Asserts that gradients agree; one that is zero but for rounding is measured by the others."""
    assert got.keys() == expected.keys()
    largest = max(g.abs().max().item() for g in expected.values())
    for name, grad in expected.items():
        bound = tolerance * max(grad.abs().max().item(), 1e-2 * largest)
        assert (got[name] - grad).abs().max().item() <= bound, name
