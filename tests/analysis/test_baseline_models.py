"""Baselines cost no more than they may, and as much as they can; the base stays as it was."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import baselines, benchmark, evaluate, lower_resolution, parse_spec
from tokenred.analysis.baseline_models import KINDS, baselines_beside, smaller_sizes
from tokenred.core.errors import BackboneError, ConfigError, InputError, PartError, ScheduleError

SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 2, "num_classes": 5}
QUICK: dict[str, Any] = {"progress": False}


def vit(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**(SMALL | {"img_size": 32, "patch_size": 4} | options)).eval()


@pytest.mark.parametrize("share", [0.2, 0.65, 0.99])
def test_within_the_budget_and_the_largest_that_is(digits: nn.Module, share: float) -> None:
    found = baselines(tr.wrap(digits, "tome"), share)
    budget = share * tr.gmacs(digits)
    assert tuple(found) == KINDS
    for model in found.values():
        assert tr.gmacs(model) <= budget
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    low, shallow, uniform = found.values()
    side = low.base.patch_embed.img_size[0]
    assert side == 28 or tr.gmacs(lower_resolution(digits, (side + 4, side + 4))) > budget
    # One block or one token more would be too many.
    block = tr.wrap(digits, "topk").cost().layers[0].macs / 1e9
    assert tr.gmacs(shallow) + block > budget
    kept = uniform.cost().layers[0].tokens_out
    more = tr.wrap(digits, tr.strategy("uniform", keep_rate=(kept + 1) / 64))
    assert kept == 64 or tr.gmacs(more) > budget
    assert uniform.base is digits


def test_the_shallow_model_is_its_first_blocks(digits: nn.Module) -> None:
    images = torch.randn(3, 3, 32, 32)
    shallow = baselines(digits, 0.5, kinds=["depth"])["depth"]
    depth = len(shallow.blocks)
    assert 1 <= depth < len(digits.blocks) == 8
    with torch.no_grad():
        x = digits.norm_pre(digits._pos_embed(digits.patch_embed(images)))
        expected = digits.forward_head(digits.norm(digits.blocks[:depth](x)))
        torch.testing.assert_close(shallow(images), expected)
    theirs = dict(digits.named_parameters())
    assert all(theirs[name] is own for name, own in shallow.named_parameters())


def test_a_smaller_model_by_itself_or_by_name(digits: nn.Module) -> None:
    def small(**options: object) -> VisionTransformer:
        made = vit(**({"num_classes": 10} | options))
        made.pretrained_cfg = {}
        return made

    tiny = small()
    assert baselines(digits, 0.5, kinds=(), smaller=tiny) == {"smaller": tiny}
    for wrong, said in {
        "digits": "expected a smaller model of at most",
        small(num_classes=7): r"classes: 10, .* got 7",
        small(img_size=16): r"images of \(3, 32, 32\), .* got \(3, 16, 16\)",
    }.items():
        with pytest.raises(ConfigError, match=said):
            baselines(digits, 0.5, kinds=(), smaller=wrong)
    tiny.pretrained_cfg = {"mean": (0.9, 0.9, 0.9)}
    with pytest.raises(ConfigError, match="pixels of mean"):
        baselines(digits, 0.5, kinds=(), smaller=tiny)
    with pytest.raises(PartError, match="smaller model"):
        baselines(digits, 0.5, kinds=(), smaller=3)  # type: ignore[arg-type]


def test_refused(digits: nn.Module) -> None:
    for share in (0, 1, 1.5, -0.1, True, float("nan")):
        with pytest.raises(ConfigError, match="gmacs_share must be"):
            baselines(digits, share)
    for kinds in (("resolution", "width"), "depth"):
        with pytest.raises(ConfigError, match="kinds must be"):
            baselines(digits, 0.5, kinds=kinds)
    for kind in KINDS:
        with pytest.raises(ScheduleError):
            baselines(digits, 0.001, kinds=(kind,))
    with pytest.raises(BackboneError):
        baselines(nn.Linear(2, 2), 0.5)


# In a comparison.


def test_beside_strategies_at_what_each_costs(digits: nn.Module) -> None:
    specs = [parse_spec(text) for text in ("tome@0.6", "evit@0.6", "gtp:P=4", "gtp:P=0")]
    reduced = {spec.label: tr.wrap(digits, spec) for spec in specs}
    found, notes = baselines_beside(digits, specs, reduced, True)
    own = tr.gmacs(reduced["gtp:P=4"]) / tr.gmacs(digits)
    texts = ("0.6", f"{own:.3g}")
    # The strategy that removes nothing has no budget to match.
    assert [b.label for b in found] == [f"{kind}@{text}" for kind in KINDS for text in texts]
    (note,) = notes  # a reader would take them to cost what the strategies do
    assert note.startswith("Of the dense model's GMACs, resolution@0.6 costs 0.544, ")
    for baseline in found:
        limit = 0.6 if baseline.label.endswith("@0.6") else own
        assert baseline.reduced.cost().gmacs <= limit * tr.gmacs(digits)
    low, shallow = found[0], found[2]
    assert json.loads(low.config) == {"baseline": "resolution", "image_size": [24, 24]}
    assert json.loads(shallow.config)["blocks"] == len(shallow.model.blocks)


def test_beside_strategies_at_shares_of_the_users(digits: nn.Module) -> None:
    mine = tr.wrap(digits, "topk")
    found, notes = baselines_beside(digits, [], {"uniform@0.5": mine}, [0.5, 0.05])
    labels = ["resolution@0.5", "resolution@0.05", "depth@0.5", "uniform@0.05"]
    assert [b.label for b in found] == labels
    missing, cheaper = notes
    assert missing.startswith("No baseline depth@0.05: ")
    assert "resolution@0.5 costs 0.376" in cheaper
    assert baselines_beside(digits, [], {}, False) == ([], ())
    for wanted in ([0.5, 2], 0.5):
        with pytest.raises(ConfigError, match="baselines must be"):
            baselines_beside(digits, [], {}, wanted)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'depth@0\.5', which is a baseline's"):
        baselines_beside(digits, [], {"depth@0.5": mine}, [0.5])


# At a lower resolution.


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
    low, full = lower_resolution(model, size), model.patch_embed.img_size
    images = torch.randn(2, 3, *full)
    resized = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    plain = plain_at(model, size, **{k: v for k, v in options.items() if k != "img_size"})
    with torch.no_grad():
        torch.testing.assert_close(low(images), plain(resized))
        torch.testing.assert_close(low(resized), plain(resized))
        torch.testing.assert_close(low.bfloat16()(images.bfloat16()).float(), plain(resized),
                                   rtol=0.1, atol=0.1)  # fmt: skip
    # The closed form of a plain model at that size, whichever size is asked for.
    assert tr.gmacs(low) == tr.gmacs(plain) == tr.gmacs(low, (3, *full)) < tr.gmacs(vit(**options))


def test_the_base_stays_as_it_is_and_shares_its_weights(digits: nn.Module) -> None:
    before = {name: value.clone() for name, value in digits.state_dict().items()}
    low = lower_resolution(digits, (24, 24))
    low(torch.randn(2, 3, 32, 32))
    assert digits.patch_embed.img_size == (32, 32)
    assert {n: torch.equal(v, before[n]) for n, v in digits.state_dict().items()} == dict.fromkeys(
        before, True
    )
    own = dict(low.named_parameters())
    # No hidden second copy of the full model.
    assert own.keys() == dict(digits.named_parameters()).keys()
    assert [n for n, p in digits.named_parameters() if own[n] is not p] == ["pos_embed"]
    assert own["pos_embed"].shape[1] == 36 + digits.num_prefix_tokens


def test_evaluated_on_full_images_and_timed_against_the_full_model(digits: nn.Module) -> None:
    low = lower_resolution(digits, (24, 24)).train()
    seen: list[tuple[int, ...]] = []
    hook = low.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    assert evaluate(low, "digits", limit=50, **QUICK).top1 > 80
    hook.remove()
    assert seen == [(50, 3, 24, 24)]
    assert low.training
    assert low.base.training
    assert not digits.training
    for options in ({}, {"dense": digits}):
        (timing,) = benchmark(low, batch_size=2, pairs=2, warmup=0, **QUICK, **options)
        assert timing.allowed == pytest.approx(tr.gmacs(digits) / tr.gmacs(low))


def test_sizes(digits: nn.Module) -> None:
    assert smaller_sizes(digits) == [(4 * side, 4 * side) for side in range(1, 8)]
    assert smaller_sizes(vit(img_size=(16, 32))) == [
        (4, 4), (4, 8), (8, 12), (8, 16), (8, 20), (12, 24), (16, 28)
    ]  # fmt: skip


def test_sizes_refused(digits: nn.Module) -> None:
    low = lower_resolution(digits, (16, 16))
    for images in (torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 32, 16)):
        with pytest.raises(InputError, match="32×32, or 16×16 already, got"):
            low(images)
    with pytest.raises(InputError, match="32×32, or 16×16"):
        tr.gmacs(low, (3, 64, 64))
    with pytest.raises(InputError, match="images must be"):
        low(torch.zeros(3, 32, 32))
    with pytest.raises(BackboneError, match="another image size"):
        lower_resolution(nn.Linear(2, 2), (16, 16))
