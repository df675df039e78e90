"""Features of several blocks as timm gives them, and maps for decoders."""

import copy
import itertools
from typing import Any

import pytest
import timm
import torch
from timm.models._features import FeatureGetterNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import build, images_for, vit
from tokenred.core.errors import BackboneError, ConfigError
from tokenred.reduced.features import FeatureMaps
from tokenred.reduced.kept import FILLS

NOTHING, TOME = tr.strategy("gtp", P=0), tr.strategy("tome", r=3)
METHODS = {
    "gtp": tr.strategy("gtp", P=2, M=3),
    "prune": tr.Strategy("MixedAttn", schedule=3),
    "evit": tr.strategy("evit", layers=(0, 1), keep_rate=0.6),
    "tome": TOME,
    "idle": tr.strategy("idlevit", layers=(1, 2), keep_ratios=(0.6, 0.4)),
    "before": tr.Strategy("Random", schedule=3, where="before_block"),
}
ARGUMENTS = {
    "indices": (None, 2, (2, 0, 2), [-1]),
    "return_prefix_tokens": (False, True),
    "norm": (False, True),
    "stop_early": (False, True),
    "output_fmt": ("NCHW", "NLC"),
    "intermediates_only": (False, True),
    "output_dict": (False, True),
}
COMBINATIONS = [
    dict(zip(ARGUMENTS, c, strict=True)) for c in itertools.product(*ARGUMENTS.values())
]
FORMS: dict[str, Any] = {
    "registers": lambda: vit(reg_tokens=2),
    "no prefix": lambda: vit(class_token=False, global_pool="avg"),
    "lvvit": lambda: build("lvvit: plain").eval(),
}


def _compare(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, Tensor):
        torch.testing.assert_close(got, expected)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            _compare(got[key], expected[key])
    else:
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            _compare(one, other)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_intermediates_are_timm_s(form: str) -> None:
    model = FORMS[form]()
    reduced, images = tr.wrap(model, NOTHING), images_for(model, 1)
    # With every value of an argument come all values of any other.
    for arguments in COMBINATIONS[::7]:
        got = reduced.forward_intermediates(images, **arguments)
        _compare(got, model.forward_intermediates(images, **arguments))
    places = (2, True, True, True, "NLC", True, False)
    got = reduced.forward_intermediates(images, *places)
    _compare(got, model.forward_intermediates(images, *places))
    for arguments in (
        {}, {"n": (0, 2), "reshape": True}, {"n": 2, "norm": True},
        {"n": [1], "return_prefix_tokens": True},
    ):  # fmt: skip
        got = reduced.get_intermediate_layers(images, **arguments)
        _compare(got, model.get_intermediate_layers(images, **arguments))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", [False, True])
def test_full_maps(method: str, norm: bool) -> None:
    model = vit()
    reduced, images = tr.wrap(model, METHODS[method]), images_for(model)
    final, maps = reduced.forward_intermediates(images, norm=norm)
    assert [tuple(m.shape) for m in maps] == [(2, 32, 4, 3)] * 3
    # No patch is left empty.
    assert all(m.abs().sum(dim=1).min() > 0 for m in maps)
    torch.testing.assert_close(final, reduced.forward_features(images))
    torch.testing.assert_close(reduced.forward_head(final), reduced(images))
    _, trace = reduced.run_with_trace(images)
    last_norm = reduced.backbone.norm if norm else None
    for layer, found in enumerate(maps):
        tokens = trace.features[layer] if last_norm is None else last_norm(trace.features[layer])
        expected = trace.cut(layer).unreduce(tokens, norm=last_norm)
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected)
    _, tokens = reduced.forward_intermediates(images, output_fmt="NLC", norm=norm)
    for flat, found in zip(tokens, maps, strict=True):
        torch.testing.assert_close(flat, found.flatten(2).transpose(1, 2))
    only = {"output_fmt": "NLC", "intermediates_only": True}
    for fill in FILLS if not norm else ():
        (found,) = reduced.forward_intermediates(images, 1, **only, fill=fill)
        torch.testing.assert_close(found, trace.unreduce(trace.features[-1], fill))
    found = reduced.forward_intermediates(images, unreduce=False, **only)
    for tokens, expected in zip(found, trace.features, strict=True):
        torch.testing.assert_close(tokens, expected[:, 1:])


def test_stop_early_runs_no_block_too_many() -> None:
    model, seen = vit(), []
    reduced = tr.wrap(model, METHODS["prune"])
    for i, block in enumerate(reduced.blocks):
        block.norm1.register_forward_hook(lambda *_, i=i: seen.append(i))
    reduced.forward_intermediates(images_for(model), [1], stop_early=True)
    assert seen == [0, 1]


def test_adaptive_counts() -> None:
    model = vit(global_pool="avg")
    reduced = tr.wrap(model, tr.strategy("ats"))
    images = images_for(model, 4) * torch.logspace(-2, 1, 4)[:, None, None, None]
    assert not bool(reduced.kept_tokens(images).alive.all())
    final, maps = reduced.forward_intermediates(images)
    assert [tuple(m.shape) for m in maps] == [(4, 32, 4, 3)] * 3
    torch.testing.assert_close(reduced.forward_head(final), reduced(images))
    for i in range(4):
        alone = reduced.forward_intermediates(images[i : i + 1], intermediates_only=True)
        for one, all_of_them in zip(alone, maps, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", [
    {"indices": 0}, {"indices": 4}, {"indices": [3]}, {"indices": [-4]}, {"indices": []},
    {"output_fmt": "NHWC"}, {"fill": "mean"}, {"unreduce": False},
], ids=str)  # fmt: skip
def test_refused_intermediates(arguments: dict[str, Any]) -> None:
    model = vit()
    with pytest.raises(ConfigError):
        tr.wrap(model, METHODS["gtp"]).forward_intermediates(images_for(model), **arguments)


# ---------------------------------------------------------------- tokenred.features


@pytest.mark.parametrize("out_indices", [3, (0, 2), (-1,), [1, -2]], ids=str)
@pytest.mark.parametrize("norm", [False, True])
def test_maps_are_timm_s(out_indices: Any, norm: bool) -> None:
    model = vit(reg_tokens=1, depth=4)
    theirs = FeatureGetterNet(copy.deepcopy(model), out_indices, norm=norm)
    ours = tr.features(model, NOTHING, out_indices, norm=norm)
    _compare(ours(images_for(model)), theirs(images_for(model)))
    for name in ("channels", "reduction", "module_name"):
        assert getattr(ours.feature_info, name)() == getattr(theirs.feature_info, name)()
    # And timm's own reader takes a reduced model.
    reduced = tr.wrap(model, TOME)
    expected = tr.features(reduced, out_indices=out_indices, norm=norm)(images_for(model))
    _compare(FeatureGetterNet(reduced, out_indices, norm=norm)(images_for(model)), expected)


def test_feature_info() -> None:
    theirs = timm.create_model("test_vit", features_only=True, out_indices=(1, 2)).feature_info
    info = tr.features(timm.create_model("test_vit"), TOME, (1, 2)).feature_info
    assert info.out_indices == tuple(theirs.out_indices)
    assert info.get_dicts(["num_chs", "reduction"]) == theirs.get_dicts(["num_chs", "reduction"])
    assert info.get("module", 0) == theirs.get("module", 0) == info[0]["module"] == "blocks.0"
    assert info.channels([0, 2]) == theirs.channels([0, 2])
    assert info.get_dicts(idx=2)["reduction"] == 16
    oblong = tr.features(vit(patch_size=(8, 4)), TOME)
    assert oblong.feature_info.reduction() == [8] * 3
    assert len(oblong.feature_info) == 3


def test_of_reduced_and_of_dense_models() -> None:
    model = vit()
    images, maps = images_for(model), tr.features(model, TOME, 2)
    assert [tuple(m.shape) for m in maps(images)] == [(2, 32, 4, 3)] * 2
    again = tr.features(tr.wrap(model, TOME), out_indices=2)
    assert again.model.strategy == TOME
    _compare(again(images), maps(images))
    dense = tr.features(model, out_indices=[2], output_fmt="NLC")(images)[0]
    torch.testing.assert_close(dense, model.get_intermediate_layers(images)[0])
    named = tr.features(model, "gtp", [2], fill="zero")
    assert named.model.strategy == tr.strategy("gtp")
    assert len(named(images)) == 1
    dynamic = tr.features(vit(dynamic_img_size=True), TOME, [-1])
    assert [tuple(m.shape) for m in dynamic(torch.randn(1, 3, 40, 64))] == [(1, 32, 5, 8)]


class Segmenter(nn.Module):
    """A decoder that knows of its encoder what timm's would tell it."""

    def __init__(self, encoder: FeatureMaps) -> None:
        super().__init__()
        self.encoder = encoder
        self.classify = nn.Conv2d(sum(encoder.feature_info.channels()), 3, 1)
        self.up = nn.Upsample(scale_factor=encoder.feature_info.reduction()[0])

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.up(self.classify(torch.cat(self.encoder(images), dim=1)))
        return found


@pytest.mark.parametrize("prune", [False, True])
def test_in_front_of_a_decoder(prune: bool) -> None:
    model = vit(depth=4)
    images = images_for(model)
    segmenter = Segmenter(tr.features(model, TOME, (0, 2), prune=prune)).train()
    assert segmenter.encoder.model.training
    segmenter(images).square().mean().backward()
    without = {n for n, p in segmenter.named_parameters() if p.grad is None}
    if prune:
        assert not without
    else:
        assert "encoder.model.head.weight" in without
    assert segmenter(images).shape == (2, 3, 32, 24)
    twin = copy.deepcopy(segmenter.eval())
    twin.load_state_dict(segmenter.state_dict())
    assert torch.equal(twin(images), segmenter(images))


def test_pruned_blocks_do_as_before() -> None:
    # The schedule goes by four blocks, of which two are left.
    strategy = tr.strategy("evit", keep_rate=0.5)
    assert [x.removed for x in tr.wrap(vit(depth=4), strategy).cost().layers] == [0, 6, 3, 2]
    expected = tr.features(vit(depth=4), strategy, (0, 1))
    pruned = tr.features(vit(depth=4), strategy, (0, -3), prune=True)
    assert pruned.out_indices == (0, 1)
    assert len(pruned.model.blocks) == len(pruned.model.base.blocks) == 2
    _compare(pruned(images_for(vit())), expected(images_for(vit())))
    cost, whole = pruned.model.cost(), expected.model.cost()
    assert [x.macs for x in cost.layers] == [x.macs for x in whole.layers[:2]]
    assert cost.head == 0
    assert cost == pruned.model.cost((32, 24))


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit()
    with pytest.raises(ConfigError, match="blocks"):
        tr.features(model, TOME, (4,))
    with pytest.raises(ConfigError, match="output_fmt"):
        tr.features(model, TOME, output_fmt="NHWC")
    with pytest.raises(ConfigError, match="fill"):
        tr.features(model, TOME, fill="mean")
    with pytest.raises(BackboneError, match="no adapter"):
        tr.features(nn.Linear(2, 2), TOME)
    monkeypatch.delattr(VisionTransformer, "prune_intermediate_layers")
    with pytest.raises(BackboneError, match="stop_early"):
        tr.features(model, TOME, prune=True)
