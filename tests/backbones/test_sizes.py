"""Sizes of images that a model takes, and those that it refuses."""

from typing import Any

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

import tokenred as tr
from tests.backbones.checks import NOTHING, same_run
from tests.backbones.forms import TINY, answer, build, lively
from tokenred.core.errors import InputError

SOME = tr.strategy("gtp", P=2, M=3)
DYNAMIC = {"dynamic_img_size": True}


def _images(height: int, width: int, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    return torch.randn(2, channels, height, width, generator=draw)


def _distilled() -> Any:
    return lively(VisionTransformerDistilled(**TINY, **DYNAMIC))


def _hybrid(name: str) -> Any:
    return lively(timm.create_model(name, img_size=64, depth=2, num_classes=5, **DYNAMIC))


MODELS: dict[str, tuple[Any, int]] = {
    "registers": (lambda: build("vit: registers", **DYNAMIC), 8),
    "position not on CLS": (lambda: build("vit: position not on CLS", **DYNAMIC), 8),
    "padded": (lambda: build("vit: registers", **DYNAMIC, dynamic_img_pad=True), 8),
    "distilled": (_distilled, 8),
    "rotary": (lambda: build("eva: rotary", **DYNAMIC), 8),
    "mixed": (lambda: build("eva: mixed", **DYNAMIC), 8),
    "dinov3": (lambda: build("eva: dinov3", **DYNAMIC), 8),
    "lvvit": (lambda: build("lvvit: plain", **DYNAMIC), 16),
    "dinov2": (lambda: build("hf: Dinov2ForImageClassification"), 8),
    "resnet": (lambda: _hybrid("vit_small_resnet50d_s16_224"), 16),
    "vitamin": (lambda: _hybrid("vitamin_small_224"), 16),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet" else n for n in MODELS]
)
def test_a_dynamic_size(name: str) -> None:
    make, patch = MODELS[name]
    model = make().eval()
    rest = {"padded": -3, "dinov2": 3}.get(name, 0)  # of a patch: padded, or cut off
    for rows, columns in ((3, 5), (8, 4)) if patch == 8 else ((4, 6),):
        images = _images(rows * patch + rest, columns * patch + rest)
        same_run(tr.wrap(model, NOTHING), model, images)
        reduced = tr.wrap(model, SOME)
        logits, trace = reduced.run_with_trace(images)
        assert trace.grid == reduced.kept_tokens(images).grid == (rows, columns)
        assert trace.tokens_per_layer[-1] == rows * columns - 2 * reduced.info.depth
        assert answer(logits).isfinite().all()
        assert reduced.cost(images.shape[2:]).layers[0].tokens_in == rows * columns


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resizing
@pytest.mark.parametrize("form", ["vit: pre-norm block", "eva: mixed", "eva: dinov3", "beit: both"])
def test_another_input_size(form: str) -> None:
    model = build(form).eval()
    if not hasattr(model, "set_input_size"):
        pytest.skip("this version of timm cannot change the size")
    reduced = tr.wrap(model, NOTHING)
    model.set_input_size((48, 24))
    same_run(reduced, model, _images(48, 24))
    with pytest.raises(InputError, match="48×24"):
        reduced(_images(32, 32))


WRONG: dict[str, tuple[Any, Tensor, str]] = {
    "lvvit": (lambda: build("lvvit: plain"), _images(64, 80), "must be 64×64, got 64×80"),
    "lvvit, dynamic": (MODELS["lvvit"][0], _images(64, 72), "multiples of the patch 16×16, got 64"),
    "channels": (
        lambda: build("lvvit: plain", in_chans=1), _images(64, 64), r"\(batch, 1, height, width\)",
    ),
    "resnet": (MODELS["resnet"][0], _images(72, 64), "72×64"),
    "hf": (lambda: build("hf: ViTModel"), _images(32, 40), "must be 32×32, got 32×40"),
    "hf, one": (lambda: build("hf: ViTModel"), _images(32, 32)[0], r"got \(3, 32, 32\)"),
    "hf, uint8": (lambda: build("hf: ViTModel"), _images(32, 32).byte(), "uint8"),
    "dinov2": (MODELS["dinov2"][0], _images(4, 40), "at least one patch"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_images(name: str) -> None:
    make, images, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        tr.wrap(make(), NOTHING)(images)


def test_what_an_image_processor_returns() -> None:
    with pytest.raises(InputError, match=r"got dict.*\['pixel_values'\]"):
        tr.wrap(build("hf: ViTModel"), NOTHING)({"pixel_values": _images(32, 32)})
