"""The dense model on smaller images: the same weights, another size, and the base as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import LowerResolution, benchmark, evaluate
from tokenred.analysis.lower_resolution import smaller_sizes, twin
from tokenred.core.errors import BackboneError, InputError
from tokenred.data import eval_transform, open_dataset

SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 2, "num_classes": 5}


def vit(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**(SMALL | {"img_size": 32, "patch_size": 4} | options)).eval()


def plain_at(model: nn.Module, size: tuple[int, int], **options: object) -> VisionTransformer:
    """A plain model of timm's, built at that size, with the weights as timm resamples them."""
    made = vit(img_size=size, **options)
    state = model.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"],
        new_size=made.patch_embed.grid_size,
        old_size=model.patch_embed.grid_size,
        num_prefix_tokens=0 if model.no_embed_class else model.num_prefix_tokens,
    )
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (20, 20)),
        ({"class_token": False, "global_pool": "avg"}, (28, 28)),
        ({"reg_tokens": 3, "no_embed_class": True}, (4, 4)),
        ({"dynamic_img_size": True}, (16, 16)),
        ({"img_size": (32, 48)}, (20, 28)),
    ],
)
def test_it_is_the_plain_model_of_that_size_on_resized_images(
    options: dict[str, object], size: tuple[int, int]
) -> None:
    model = vit(**options)
    low = LowerResolution(model, size)
    images = torch.randn(2, 3, *low.full_size)
    resized = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    rest = {name: value for name, value in options.items() if name != "img_size"}
    plain = plain_at(model, size, **rest)
    with torch.no_grad():
        torch.testing.assert_close(low(images), plain(resized))
        torch.testing.assert_close(low(resized), plain(resized))
    # The closed form of a plain model at that size, whichever size is asked for.
    assert tr.gmacs(low) == tr.gmacs(plain) == tr.gmacs(low, (3, *low.full_size))
    assert tr.gmacs(low) < tr.gmacs(model)


def test_the_base_stays_as_it_is_and_shares_its_weights(digits: nn.Module) -> None:
    before = {name: value.clone() for name, value in digits.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = digits(images)
    low = LowerResolution(digits, (24, 24))
    low(images)
    assert digits.patch_embed.img_size == (32, 32)
    assert digits.state_dict().keys() == before.keys()
    for name, value in digits.state_dict().items():
        assert torch.equal(value, before[name])
    with torch.no_grad():
        assert torch.equal(digits(images), expected)
    own = dict(low.named_parameters())
    different = [n for n, p in digits.named_parameters() if own[n].data_ptr() != p.data_ptr()]
    assert different == ["pos_embed"]
    assert own["pos_embed"].shape[1] == 36 + digits.num_prefix_tokens
    # No hidden second copy of the full model.
    assert own.keys() == dict(digits.named_parameters()).keys()


def test_a_twin_is_another_module_with_the_same_tensors(digits: nn.Module) -> None:
    other = twin(digits)
    assert other is not digits
    assert other.blocks[0] is not digits.blocks[0]
    for one, two in zip(digits.parameters(), other.parameters(), strict=True):
        assert one is two


def test_sizes(digits: nn.Module) -> None:
    assert smaller_sizes(digits) == [(4 * side, 4 * side) for side in range(1, 8)]
    assert smaller_sizes(vit(img_size=(16, 32))) == [
        (4, 4), (4, 8), (8, 12), (8, 16), (8, 20), (12, 24), (16, 28)
    ]  # fmt: skip


def test_evaluation_gives_it_the_full_images(digits: nn.Module) -> None:
    low = LowerResolution(digits, (24, 24))
    seen: list[tuple[int, ...]] = []
    hook = low.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    found = evaluate(low, "digits", limit=50, progress=False)
    hook.remove()
    assert seen == [(50, 3, 24, 24)]
    assert found.top1 > 80
    dataset = open_dataset("digits", transform=eval_transform(digits))
    same = evaluate(low, dataset, limit=50, progress=False)
    assert same.prediction.tolist() == found.prediction.tolist()


def test_timed_against_the_full_model(digits: nn.Module) -> None:
    low = LowerResolution(digits, (16, 16))
    for options in ({}, {"dense": digits}):
        (timing,) = benchmark(low, batch_size=2, pairs=2, warmup=0, progress=False, **options)
        assert timing.gmacs == pytest.approx(tr.gmacs(low))
        assert timing.allowed == pytest.approx(tr.gmacs(digits) / tr.gmacs(low))


def test_modes_come_back_for_the_small_model(digits: nn.Module) -> None:
    low = LowerResolution(digits, (16, 16))
    low.train()
    evaluate(low, "digits", limit=10, progress=False)
    assert low.training
    assert low.base.training
    digits.eval()


def test_half_precision_and_printing() -> None:
    low = LowerResolution(vit().to(torch.bfloat16), (16, 16))
    assert low(torch.randn(1, 3, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert "16×16 for 32×32" in repr(low)


def test_refused(digits: nn.Module) -> None:
    low = LowerResolution(digits, (16, 16))
    for images in (torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 32, 16)):
        with pytest.raises(InputError, match="32×32, or 16×16 already, got"):
            low(images)
    with pytest.raises(InputError, match="32×32, or 16×16"):
        tr.gmacs(low, (3, 64, 64))
    with pytest.raises(InputError, match="images must be"):
        low(torch.zeros(3, 32, 32))
    with pytest.raises(BackboneError, match="another image size"):
        LowerResolution(nn.Linear(2, 2), (16, 16))
