from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tokenred.core.errors import CheckpointError
from tokenred.models.fit import describe_weights, load_strictly


def vit(classes: int = 3, width: int = 8, depth: int = 2) -> VisionTransformer:
    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=1, num_classes=classes
    )


def test_weights_that_fit_are_loaded_in_the_models_own_dtype() -> None:
    model, other = vit(), vit()

    load_strictly(model, other.half().state_dict(), "file")

    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(model.pos_embed, other.pos_embed.float())


def test_weights_are_described() -> None:
    words = "width 8, 2 blocks, patch 8, 5 positions, 3 classes"

    assert describe_weights(vit().state_dict()) == words
    assert describe_weights({"x": torch.ones(1)}) == "1 weights of an unknown kind"


def test_one_bad_weight_leaves_the_model_untouched() -> None:
    model = vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = vit().state_dict()
    del state["norm.bias"]
    state["extra"] = torch.ones(1)
    state["cls_token"] = torch.ones(1, 1, 9)

    with pytest.raises(CheckpointError) as caught:
        load_strictly(model, state, "w.pth")

    message = str(caught.value)
    assert "w.pth" in message
    assert "missing: norm.bias" in message
    assert "unexpected: extra" in message
    assert "cls_token is (1, 1, 9) but should be (1, 1, 8)" in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_numbers_of_another_kind_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match=f"of other type: .* is {dtype} but should be"):
        load_strictly(vit(), {k: v.to(dtype) for k, v in vit().state_dict().items()}, "file")


def test_another_number_of_classes_gets_its_advice() -> None:
    with pytest.raises(CheckpointError, match="Pass num_classes=5"):
        load_strictly(vit(), vit(classes=5).state_dict(), "file")
    with pytest.raises(CheckpointError, match="pass num_classes=0"):
        load_strictly(vit(), vit(classes=0).state_dict(), "file")


def test_another_model_is_described_and_long_lists_are_cut() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_strictly(vit(), vit(width=16, depth=4).state_dict(), "file")

    assert "Expected width 8, 2 blocks" in str(caught.value)
    assert "got width 16, 4 blocks" in str(caught.value)
    assert "and 18 more" in str(caught.value)
