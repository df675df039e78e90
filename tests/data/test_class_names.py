"""Names of the classes, where they are known."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from tokenred.data.class_names import class_names
from tokenred.models import load_model


def vit(classes: int) -> VisionTransformer:
    return VisionTransformer(
        img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=1, num_classes=classes
    )


def test_digits_and_imagenet() -> None:
    assert class_names(load_model("digits")) == tuple("0123456789")
    names = class_names(vit(1000))
    assert names is not None
    assert len(names) == 1000
    assert names[207] == "golden retriever"


def test_names_that_a_model_records() -> None:
    model = vit(2)
    model.pretrained_cfg = {"label_names": ["cat", "dog"]}
    assert class_names(model) == ("cat", "dog")
    model.pretrained_cfg = {"label_names": ["cat"]}
    assert class_names(model) is None


def test_nobody_knows_the_others() -> None:
    assert class_names(vit(7)) is None
