"""Maps for decoders: the same contract as timm's ``features_only``."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models._features import FeatureGetterNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.core.errors import BackboneError, ConfigError
from tokenred.reduced.features import FeatureMaps

NOTHING = tr.strategy("gtp", P=0)
TOME = tr.strategy("tome", r=3)


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    tiny = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4}
    return VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()


def _images(batch: int = 2, size: tuple[int, int] = (32, 24)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("out_indices", [3, (0, 2), (-1,), [1, -2]], ids=str)
@pytest.mark.parametrize("norm", [False, True])
def test_as_timm(out_indices: Any, norm: bool) -> None:
    model = _model(reg_tokens=1)
    theirs = FeatureGetterNet(copy.deepcopy(model), out_indices, norm=norm)
    ours = tr.features(model, NOTHING, out_indices, norm=norm)
    for found, expected in zip(ours(_images()), theirs(_images()), strict=True):
        torch.testing.assert_close(found, expected)
    for name in ("channels", "reduction", "module_name"):
        assert getattr(ours.feature_info, name)() == getattr(theirs.feature_info, name)()


def test_feature_info() -> None:
    theirs = timm.create_model("test_vit", features_only=True, out_indices=(1, 2)).feature_info
    info = tr.features(timm.create_model("test_vit"), TOME, (1, 2)).feature_info
    assert info.out_indices == tuple(theirs.out_indices)
    assert info.get_dicts(["num_chs", "reduction"]) == theirs.get_dicts(["num_chs", "reduction"])
    assert info.get("module", 0) == theirs.get("module", 0) == info[0]["module"] == "blocks.0"
    assert info.channels([0, 2]) == theirs.channels([0, 2])
    assert info.get_dicts(idx=2)["reduction"] == 16
    oblong = tr.features(_model(patch_size=(8, 4)), TOME)
    assert oblong.feature_info.reduction() == [8] * 3
    assert len(oblong.feature_info) == 4


def test_of_reduced_and_of_dense_models() -> None:
    model = _model()
    maps = tr.features(model, TOME, 2)
    assert [tuple(m.shape) for m in maps(_images())] == [(2, 32, 4, 3)] * 2
    again = tr.features(tr.wrap(model, TOME), out_indices=2)
    assert again.model.strategy == TOME
    for one, other in zip(maps(_images()), again(_images()), strict=True):
        assert torch.equal(one, other)
    dense = tr.features(model, out_indices=[3], output_fmt="NLC")(_images())[0]
    torch.testing.assert_close(dense, model.get_intermediate_layers(_images())[0])
    named = tr.features(model, "gtp", [3], fill="zero")
    assert named.model.strategy == tr.strategy("gtp")
    assert len(named(_images())) == 1


def test_a_dynamic_size() -> None:
    maps = tr.features(_model(dynamic_img_size=True), TOME, [-1])
    assert [tuple(m.shape) for m in maps(_images(1, (40, 64)))] == [(1, 32, 5, 8)]


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
    segmenter = Segmenter(tr.features(_model(), TOME, (0, 2), prune=prune)).train()
    assert segmenter.encoder.model.training
    segmenter(_images()).square().mean().backward()
    without = {n for n, p in segmenter.named_parameters() if p.grad is None}
    if prune:
        assert not without
    else:
        assert "encoder.model.head.weight" in without
    assert segmenter(_images()).shape == (2, 3, 32, 24)
    twin = copy.deepcopy(segmenter.eval())
    twin.load_state_dict(segmenter.state_dict())
    assert torch.equal(twin(_images()), segmenter(_images()))


def test_pruned_blocks_do_as_before() -> None:
    # The schedule goes by four blocks, of which two are left.
    strategy = tr.strategy("evit", keep_rate=0.5)
    assert [x.removed for x in tr.wrap(_model(), strategy).cost().layers] == [0, 6, 3, 2]
    expected = tr.features(_model(), strategy, (0, 1))
    pruned = tr.features(_model(), strategy, (0, -3), prune=True)
    assert pruned.out_indices == (0, 1)
    assert len(pruned.model.blocks) == len(pruned.model.base.blocks) == 2
    for one, other in zip(pruned(_images()), expected(_images()), strict=True):
        torch.testing.assert_close(one, other)
    cost, whole = pruned.model.cost(), expected.model.cost()
    assert [x.macs for x in cost.layers] == [x.macs for x in whole.layers[:2]]
    assert cost.head == 0
    assert cost == pruned.model.cost((32, 24))


def test_timm_takes_a_reduced_model() -> None:
    maps = FeatureGetterNet(tr.wrap(_model(), TOME), (1, 2), norm=True)
    expected = tr.features(_model(), TOME, (1, 2), norm=True)
    for one, other in zip(maps(_images()), expected(_images()), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_one_graph() -> None:
    maps = tr.features(_model(depth=2), TOME, 1)
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(maps, fullgraph=True, backend="eager")(_images())
        torch.testing.assert_close(found[0], maps(_images())[0])


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="blocks"):
        tr.features(_model(), TOME, (4,))
    with pytest.raises(ConfigError, match="output_fmt"):
        tr.features(_model(), TOME, output_fmt="NHWC")
    with pytest.raises(ConfigError, match="fill"):
        tr.features(_model(), TOME, fill="mean")
    with pytest.raises(BackboneError, match="no adapter"):
        tr.features(nn.Linear(2, 2), TOME)
    monkeypatch.delattr(VisionTransformer, "prune_intermediate_layers")
    with pytest.raises(BackboneError, match="stop_early"):
        tr.features(_model(), TOME, prune=True)
