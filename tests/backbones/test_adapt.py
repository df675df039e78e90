"""Which models the adapters take, and how the others are refused."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.small import Unfilled
from tokenred import backbones
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.core.errors import BackboneError

TINY: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2}
TINY |= {"num_heads": 2, "num_classes": 5}
SOME = tr.strategy("gtp", P=2, M=3)


class Renamed(VisionTransformer):
    """Changes nothing that a forward runs through."""

    extra = 1


class OwnForward(VisionTransformer):
    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(x) * 2


class OwnEmbedding(VisionTransformer):
    def _pos_embed(self, x: Tensor) -> Tensor:
        return super()._pos_embed(x) * 2


class OwnPooling(VisionTransformer):
    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        return super().pool(x, pool_type) * 2


class OwnBlock(Block):
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(x, *args, **kwargs) * 2


def test_a_subclass_that_changes_nothing(lively: Any, same_run: Any) -> None:
    model = lively(Renamed(**TINY)).eval()
    same_run(tr.wrap(model, tr.strategy("gtp", P=0)), model, torch.ones(2, 3, 16, 16))


@pytest.mark.parametrize("kind", [OwnForward, OwnEmbedding, OwnPooling])
def test_a_subclass_that_changes_something(kind: type[VisionTransformer]) -> None:
    with pytest.raises(BackboneError, match=rf"{kind.__name__}.*its own .*VisionTransformer's"):
        tr.wrap(kind(**TINY), SOME)


def test_an_unknown_block() -> None:
    with pytest.raises(
        BackboneError, match=r"blocks.0 \(OwnBlock\): OwnBlock.forward is not Block's"
    ):
        tr.wrap(VisionTransformer(**TINY, block_fn=OwnBlock), SOME)


OTHERS = {
    "test_resnet": "ResNet",
    "test_efficientnet": "EfficientNet",
    "vit_relpos_small_patch16_224": "VisionTransformerRelPos",
    "swin_tiny_patch4_window7_224": "SwinTransformer",
    "coatnet_nano_rw_224": "MaxxVit",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures(name: str) -> None:
    known = "VisionTransformer", "Eva", "Beit", "LV-ViT"
    with Unfilled():
        model = timm.create_model(name)
    with pytest.raises(
        BackboneError, match=rf"no adapter knows timm\..*{OTHERS[name]}.*Known: "
    ) as caught:
        tr.wrap(model, SOME)
    assert all(family in str(caught.value) for family in known)


@pytest.mark.parametrize("thing", ["vit_tiny_patch16_224", None, nn.Identity])
def test_no_model_at_all(thing: Any) -> None:
    with pytest.raises(BackboneError, match=r"an nn\.Module"):
        tr.wrap(thing, SOME)


def test_no_blocks() -> None:
    model = VisionTransformer(**TINY)
    model.blocks = nn.Sequential()
    with pytest.raises(BackboneError, match="no blocks"):
        tr.wrap(model, SOME)


def test_an_own_adapter_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_BACKBONES", list(backbones._BACKBONES))

    @tr.backbones.register_backbone
    class Mine(TimmViT):
        family = "mine"

    assert isinstance(backbones.adapt(VisionTransformer(**TINY)), Mine)
    with pytest.raises(BackboneError, match="mine; timm"):
        backbones.adapt(nn.Linear(2, 2))


class OwnHead(VisionTransformer):
    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(x)[:, 1:].mean(dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x)  # type: ignore[no-any-return]


def _refused(model: nn.Module) -> str:
    with pytest.raises(BackboneError) as caught:
        tr.wrap(model, SOME)
    assert len(str(caught.value)) < 400
    assert f"{type(model).__module__}.{type(model).__qualname__}" in str(caught.value)
    return str(caught.value)


def test_a_refusal_says_why_and_what_to_unwrap() -> None:
    told = _refused(OwnHead(**TINY))
    assert "its own forward_features, forward_head, not VisionTransformer's" in told
    assert "tokenred.wrap(model._orig_mod" in _refused(torch.compile(VisionTransformer(**TINY)))  # type: ignore[arg-type]
    assert "tokenred.wrap(model.module" in _refused(nn.DataParallel(VisionTransformer(**TINY)))
    models = pytest.importorskip("torchvision").models
    assert "timm" in _refused(models.VisionTransformer(16, 4, 2, 2, 16, 32))
