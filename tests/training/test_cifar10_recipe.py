from __future__ import annotations

from typing import Any

import pytest
from timm.models.vision_transformer import VisionTransformer

from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.training.cifar10_recipe import CIFAR10_RECIPES, Cifar10Recipe


@pytest.mark.parametrize(("preset", "tokens"), [("patch2", 256), ("patch4", 64)])
def test_the_models(preset: str, tokens: int) -> None:
    model = VisionTransformer(**CIFAR10_RECIPES[preset].config)
    assert model.patch_embed.num_patches == tokens
    assert model.has_class_token
    # Two bytes each in the file, which is to stay below 15 MB.
    assert sum(p.numel() for p in model.parameters()) <= 7_000_000


def test_training_long_enough() -> None:
    assert CIFAR10_RECIPES["patch2"].epochs >= 200


@pytest.mark.parametrize(
    "changes",
    [
        {"patch": 3},
        {"batch_size": 7},
        {"heads": 5},
        {"warmup_epochs": 300},
        {"amp": "fp8"},
        {"erasing": 1.5},
        {"lr": -1.0},
        {"epochs": 0},
    ],
)
def test_refuses(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Cifar10Recipe(**changes)


def test_unknown_settings() -> None:
    with pytest.raises(UnknownNameError, match="epochs"):
        Cifar10Recipe().replace(epoch=3)
