"""Models by name, at a size and in a type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenred.analysis import weights_digest
from tokenred.analysis.measure.speed.build import build_model, check_dtype, resize
from tokenred.core.errors import ConfigError, InputError, UnknownNameError
from tokenred.models import digits_vit, load_model

TINY = "vit_tiny_patch16_224"


def test_the_embedded_model_has_its_weights() -> None:
    assert weights_digest(build_model("digits")) == weights_digest(load_model("digits"))


def test_random_weights_are_the_same_each_time_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, two = build_model(TINY), build_model(TINY)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights_digest(one) == weights_digest(two)
    assert weights_digest(build_model(TINY, seed=1)) != weights_digest(one)
    assert not one.training


def test_size_and_type() -> None:
    model = build_model("digits", (64, 32), torch.bfloat16)
    assert model.patch_embed.img_size == (64, 32)
    assert next(model.parameters()).dtype == torch.bfloat16
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 32, dtype=torch.bfloat16)).shape == (1, 10)


def test_a_checkpoint(tmp_path: Path) -> None:
    from tokenred.models import digits_card, save_checkpoint

    assert digits_card()
    path = tmp_path / "own.safetensors"
    config = '{"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}'
    from timm.models.vision_transformer import VisionTransformer

    tiny = VisionTransformer(img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    save_checkpoint(path, tiny.state_dict(), {"config": config})
    assert weights_digest(build_model(str(path))) == weights_digest(tiny)


def test_refused() -> None:
    assert check_dtype("bfloat16") == torch.bfloat16
    with pytest.raises(ConfigError, match="float32"):
        check_dtype("int8")
    with pytest.raises(UnknownNameError, match="unknown model"):
        build_model("vit_tinny")
    model = digits_vit(pretrained=False)
    with pytest.raises(InputError, match="multiples of the patch 4x4, got 33x32"):
        resize(model, (33, 32))
    with pytest.raises(InputError, match="own size only"):
        resize(torch.nn.Linear(2, 2), (32, 32))
