from __future__ import annotations

import pickle

import pytest
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from tokenred.core.errors import ConfigError
from tokenred.data import CIFAR10_MEAN, CIFAR10_STD, eval_transform

GREY = 102 / 255


def tiny(size: int = 32) -> VisionTransformer:
    return VisionTransformer(
        img_size=size, patch_size=8, embed_dim=8, depth=1, num_heads=1, num_classes=3
    )


def test_a_timm_model_keeps_its_own_preprocessing() -> None:
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)

    out = eval_transform(model)(Image.new("RGB", (300, 260), (102, 102, 102)))

    assert out.shape == (3, 224, 224)
    assert out.mean().item() == pytest.approx((GREY - 0.5) / 0.5, abs=1e-5)


def test_the_size_is_the_one_the_model_was_built_for() -> None:
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64)

    assert eval_transform(model)(Image.new("RGB", (100, 80))).shape == (3, 64, 64)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    model = tiny()
    model.pretrained_cfg = {"crop_pct": 1.0, "mean": (0, 0, 0), "std": (1, 1, 1)}
    noise = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)

    out = eval_transform(model)(Image.fromarray(noise.numpy()))

    assert torch.equal(out, noise.permute(2, 0, 1) / 255)


def test_mean_and_std_can_be_overridden() -> None:
    transform = eval_transform(tiny(), mean=(0.1, 0.2, 0.3), std=(1, 1, 2))
    out = transform(Image.new("RGB", (32, 32), (102, 102, 102)))

    assert out[:, 0, 0].tolist() == pytest.approx([GREY - 0.1, GREY - 0.2, (GREY - 0.3) / 2])


def test_cifar10_lends_its_statistics_only_to_models_without() -> None:
    image = Image.new("RGB", (32, 32), (102, 102, 102))
    model = tiny()
    lent = eval_transform(model, data="cifar10")(image)
    model.pretrained_cfg = {"mean": (0.4, 0.4, 0.4), "std": (1.0, 1.0, 1.0)}
    own = eval_transform(model, data="cifar10")(image)

    expected = [(GREY - m) / s for m, s in zip(CIFAR10_MEAN, CIFAR10_STD, strict=True)]
    assert lent[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert own[:, 0, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_it_pickles_for_workers() -> None:
    transform = pickle.loads(pickle.dumps(eval_transform(tiny())))

    assert transform(Image.new("RGB", (32, 32))).shape == (3, 32, 32)


@pytest.mark.parametrize("options", [{"mean": (0.5,)}, {"std": (1, 1, 0)}])
def test_unusable_statistics_are_refused(options: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError, match="as three"):
        eval_transform(tiny(), **options)
