"""Which models the adapters take, and how the others are refused."""

from typing import Any

import pytest
import timm
import torch
from timm.models import beit, eva
from timm.models import vision_transformer as vit
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.checks import NOTHING, same_run
from tests.backbones.forms import TABLES, TINY, Unfilled, images_for, lively
from tokenred import backbones
from tokenred.backbones.vision_transformer import TimmViT
from tokenred.core.errors import BackboneError
from tokenred.models.lvvit import LVViT

SOME = tr.strategy("gtp", P=2, M=3)
LV = {k: v for k, v in TINY.items() if k != "patch_size"} | {"img_size": 64}
MODELS: dict[type[nn.Module], dict[str, Any]] = {
    vit.VisionTransformer: TINY, eva.Eva: TINY, beit.Beit: TINY, LVViT: LV,
}  # fmt: skip
BLOCKS = [
    (vit.VisionTransformer, vit.Block, vit.Attention),
    (eva.Eva, eva.EvaBlock, eva.EvaAttention),
    (beit.Beit, beit.Block, beit.Attention),
]


def _subclass(kind: type, *names: str) -> Any:
    """A class whose methods of these names do as its base's."""

    def own(name: str) -> Any:
        return lambda self, *args, **kwargs: getattr(kind, name)(self, *args, **kwargs)

    return type("Own", (kind,), {name: own(name) for name in names} | {"extra": 1})


@pytest.mark.parametrize("kind", MODELS)
def test_subclasses(kind: type[nn.Module]) -> None:
    model = lively(_subclass(kind)(**MODELS[kind])).eval()
    reduced = tr.wrap(model, NOTHING)
    assert type(reduced.backbone) is type(backbones.adapt(kind(**MODELS[kind])))
    same_run(reduced, model, images_for(model))
    for name in ("forward_features", "_pos_embed", "forward_head", "pool"):
        if hasattr(kind, name) and (kind, name) != (LVViT, "pool"):  # which never calls it
            with pytest.raises(BackboneError, match=r"Own. It overrides .*|Own.*Known: "):
                tr.wrap(_subclass(kind, name)(**MODELS[kind]), SOME)


@pytest.mark.parametrize(("model", "block", "attention"), BLOCKS)
def test_subclasses_inside(model: Any, block: Any, attention: Any) -> None:
    for part, kind in (("", block), (".attn", attention)):
        made = model(**TINY)
        for module in made.blocks[1:]:
            target = module.attn if part else module
            target.__class__ = _subclass(kind, "forward")
        with pytest.raises(BackboneError, match=rf"blocks.1.*Own.forward is not {kind.__name__}'s"):
            tr.wrap(made, SOME)


OTHERS = {
    "test_resnet": "ResNet",
    "test_efficientnet": "EfficientNet",
    "vit_relpos_small_patch16_224": "VisionTransformerRelPos",
    "swin_tiny_patch4_window7_224": "SwinTransformer",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures(name: str) -> None:
    with Unfilled():
        model = timm.create_model(name)
    with pytest.raises(
        BackboneError, match=rf"no adapter knows timm\..*{OTHERS[name]}.*Known: "
    ) as caught:
        tr.wrap(model, SOME)
    assert "Choose a model of a known family" in str(caught.value)
    assert str(caught.value).endswith(".")  # whole
    assert all(f in str(caught.value) for f in ("VisionTransformer", "Eva", "Beit", "LV-ViT"))


@pytest.mark.parametrize("thing", ["vit_tiny_patch16_224", None, nn.Identity])
def test_no_model_at_all(thing: Any) -> None:
    with pytest.raises(BackboneError, match=r"an nn\.Module"):
        tr.wrap(thing, SOME)


@pytest.mark.parametrize("kind", MODELS)
def test_no_blocks(kind: type[nn.Module]) -> None:
    model = kind(**MODELS[kind])
    model.blocks = nn.Sequential()
    with pytest.raises(BackboneError, match="no blocks"):
        tr.wrap(model, SOME)


def test_an_own_adapter_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_BACKBONES", list(backbones._BACKBONES))

    @tr.backbones.register_backbone
    class Mine(TimmViT):
        family = "mine"

    assert isinstance(backbones.adapt(vit.VisionTransformer(**TINY)), Mine)
    with pytest.raises(BackboneError, match="mine; timm"):
        backbones.adapt(nn.Linear(2, 2))


class OwnHead(vit.VisionTransformer):
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
    assert "overrides forward_features, forward_head of VisionTransformer" in told
    plain = vit.VisionTransformer(**TINY)
    compiled: Any = torch.compile(plain)
    assert "tokenred.wrap(model._orig_mod" in _refused(compiled)
    assert "tokenred.wrap(model.module" in _refused(nn.DataParallel(plain))


def test_every_family_is_here() -> None:
    backbones.adapt(vit.VisionTransformer(**TINY))
    # SAM's takes other methods, and has a file of its own.
    assert len(TABLES) + 1 == len(backbones._BACKBONES)
