"""LV-ViT as timm knows it: shapes, classifiers, options; golden files have names and formula."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError, ConfigError, InputError
from tokenred.models import load_model
from tokenred.models.lvvit import LVViT, lvvit_s
from tokenred.models.rebuild import weightless

NARROW: dict[str, Any] = {"img_size": 48, "embed_dim": 24, "depth": 3, "num_heads": 3}
NARROW |= {"num_classes": 5}


def _narrow(**options: Any) -> LVViT:
    """A small model in which every weight and statistic matters."""
    model = LVViT(**{**NARROW, **options}).double().eval()
    draw = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=draw, dtype=value.dtype)
            spread = 0.3 if value.ndim < 4 else value[0].numel() ** -0.5
            positive = name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "running_var"))
            positive |= value.ndim == 1 and name.endswith("weight")
            value.copy_(0.5 + noise.abs() if positive else noise * spread)
    return model


def _images(*size: int, batch: int = 2, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    size = size or (48, 48)
    return torch.randn(batch, channels, *size, generator=draw, dtype=torch.float64)


# ---------------------------------------------------------------- form


@pytest.mark.parametrize(("name", "width", "depth"), [("lvvit_s", 384, 16), ("lvvit_m", 512, 20)])
def test_timm_makes_it_in_other_sizes(name: str, width: int, depth: int) -> None:
    assert name in timm.list_models("lvvit*")
    with weightless():
        other = timm.create_model(name, num_classes=7, img_size=64, in_chans=1, drop_path_rate=0.2)
    # In the order in which they run: the first convolution sees the image.
    layers = [name for name, module in other.named_modules() if isinstance(module, nn.Conv2d)]
    assert layers == [f"patch_embed.{name}" for name in ("conv1", "conv2", "conv3", "proj")]
    assert other.head.weight.shape == other.aux_head.weight.shape == (7, width)
    assert other.pos_embed.shape[1] == 17
    assert other.patch_embed.conv1.weight.shape == (64, 1, 7, 7)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in other.blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.2, depth).tolist())


@pytest.mark.parametrize("training", [False, True])
def test_one_tensor_or_the_logits_of_every_token(training: bool) -> None:
    model = _narrow().train(training)
    with torch.no_grad():
        tokens = model.forward_features(_images())
        cls, patches = model.forward_head(tokens, return_tokens=True)
        logits = model(_images())
    assert cls.shape == (2, 5)
    assert patches.shape == (2, 9, 5)
    torch.testing.assert_close(logits, cls + patches.amax(1) / 2)
    # Over whatever tokens remain.
    fewer = model.forward_head(tokens[:, :4])
    torch.testing.assert_close(fewer, cls + patches[:, :3].amax(1) / 2)
    assert not torch.allclose(fewer, logits)
    assert torch.equal(model.forward_head(tokens, pre_logits=True), tokens[:, 0])


# ---------------------------------------------------------------- as timm's


def test_a_released_file_loads_by_name(tmp_path: Path) -> None:
    with weightless():
        state = timm.create_model("lvvit_s").state_dict()
    path = tmp_path / "lvvit_s-26M-224-83.3.pth.tar"
    # Half precision: the file is written in less time, and loads as fp32.
    weights = {
        name: torch.full(value.shape, 0.25, dtype=torch.float16 if value.ndim else torch.long)
        for name, value in state.items()
    }
    torch.save(weights, path)
    model = load_model("lvvit_s", checkpoint=path)
    assert isinstance(model, LVViT)
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name].to(value.dtype)), name

    del weights["aux_head.bias"]
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r"missing: aux_head\.bias"):
        load_model("lvvit_s", checkpoint=path)


def test_reset_classifier() -> None:
    model = _narrow().train()
    model.reset_classifier(7)
    assert model.head.weight.dtype == model.aux_head.weight.dtype == torch.float64
    assert model.get_classifier() == (model.head, model.aux_head)
    assert model(_images()).shape == (2, 7)
    model.eval().reset_classifier(0)
    assert torch.equal(model(_images()), model.forward_features(_images())[:, 0])
    model.reset_classifier(0, "")
    assert torch.equal(model(_images()), model.forward_features(_images()))
    with pytest.raises(ConfigError, match="global_pool"):
        model.reset_classifier(7)
    assert model.num_classes == 0
    assert isinstance(model.head, nn.Identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 40}, "multiples of 16, got img_size=40"),
        ({"img_size": (32, 0)}, "multiples of 16"),
        ({"global_pool": "avg"}, "got 'avg' with 5 classes"),
        ({"global_pool": ""}, "got '' with 5 classes"),
    ],
)
def test_what_it_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LVViT(**{**NARROW, **options})


@torch.no_grad()
def test_sizes() -> None:
    fixed, free = _narrow(), _narrow(dynamic_img_size=True)
    torch.testing.assert_close(free(_images()), fixed(_images()), rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="must be 48×48, got 32×64"):
        fixed(_images(32, 64))
    with pytest.raises(InputError, match="multiples of 16, got 47×48"):
        free(_images(47, 48))
    fixed.set_input_size((32, 64))
    assert fixed.pos_embed.shape[1] == 9
    torch.testing.assert_close(fixed(_images(32, 64)), free(_images(32, 64)))
    for options in ({"img_size": (32, 60)}, {"img_size": 0}, {"patch_size": (8, 8)}):
        with pytest.raises(ConfigError):
            fixed.set_input_size(**options)
    assert fixed.patch_embed.img_size == (32, 64)


@torch.no_grad()
def test_features() -> None:
    model = _narrow()
    last, found = model.forward_intermediates(_images(), indices=2)
    assert [x.shape for x in found] == [(2, 24, 3, 3)] * 2
    assert torch.equal(model.forward_head(last), model(_images()))
    getter = lvvit_s(features_only=True, out_indices=(0, 2), **NARROW).double().eval()
    getter.model.load_state_dict(model.state_dict(), strict=False)
    for got, i in zip(getter(_images()), (0, 2), strict=True):
        expected = model.forward_intermediates(_images(), [i], intermediates_only=True)[0]
        torch.testing.assert_close(got, expected)
