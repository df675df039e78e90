"""Models, shapes and images of what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import weights_digest
from tokenred.analysis.measure.candidates import (
    build_model,
    image_shape_of,
    named_candidates,
    resize,
)
from tokenred.core.errors import ConfigError, InputError, PartError
from tokenred.models import digits_vit, save_checkpoint


def test_random_weights_are_the_same_each_time_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, two, other = (build_model("vit_tiny_patch16_224", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights_digest(one) == weights_digest(two) != weights_digest(other)
    assert not one.training


def test_a_checkpoint(tmp_path: Path) -> None:
    config = '{"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}'
    tiny = VisionTransformer(img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    save_checkpoint(tmp_path / "own.safetensors", tiny.state_dict(), {"config": config})
    assert weights_digest(build_model(tmp_path / "own.safetensors")) == weights_digest(tiny)


def test_models_refused() -> None:
    with pytest.raises(InputError, match="multiples of the patch 4x4, got 33x32"):
        resize(digits_vit(pretrained=False), (33, 32))
    with pytest.raises(InputError, match="only its own image size"):
        resize(nn.Linear(2, 2), (32, 32))


def test_names(digits: nn.Module) -> None:
    fast = tr.wrap(digits, "topk")
    assert named_candidates(fast, None) == {"reduced": fast}
    assert named_candidates([fast, digits], digits) == {"0": fast, "1": digits}
    assert named_candidates({"mine": fast}, None) == {"mine": fast}
    made = named_candidates(["evit", tr.strategy("topk")], digits)
    assert list(made) == ["evit", "1"]
    assert all(isinstance(model, tr.ReducedViT) for model in made.values())


def test_candidates_refused(digits: nn.Module) -> None:
    for given, dense, said in (
        ({}, digits, "at least one"),
        ("gtp", None, "Pass dense="),
        ([digits], None, "no dense model"),
    ):
        with pytest.raises(ConfigError, match=said):
            named_candidates(given, dense)
    with pytest.raises(PartError, match="got 3"):
        named_candidates({"x": 3}, digits)  # type: ignore[dict-item]


def test_shapes(digits: nn.Module) -> None:
    assert image_shape_of(digits) == (3, 32, 32)
    assert image_shape_of(digits, [1, 8, 16]) == (1, 8, 16)
    for shape in [(32, 32), (3, 0, 32)]:
        with pytest.raises(InputError, match="channels, height, width"):
            image_shape_of(digits, shape)
    with pytest.raises(InputError, match="is unknown"):
        image_shape_of(nn.Linear(2, 2))
