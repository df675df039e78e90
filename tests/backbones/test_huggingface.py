"""Hugging Face vision towers: what is their own, beside the promises of all families."""

import copy
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tests.backbones.checks import NOTHING, OPENED, same
from tests.backbones.forms import HUGGING_FACE, answer, build, hugging_face, images_for, tower_of
from tokenred.core.errors import BackboneError, ConfigError

transformers = pytest.importorskip("transformers")
SOME = tr.strategy("gtp", P=3, M=4)


def test_eager_attention() -> None:
    model = build("hf: Dinov2Model", attn_implementation="eager").eval()
    images = images_for(model)
    same(tr.wrap(model, NOTHING)(images), model(images).pooler_output)


@pytest.mark.parametrize("form", ["ViTModel", "Dinov2Model", "CLIPVisionModel"])
def test_dropout_when_opened(form: str) -> None:
    model = build(f"hf: {form}", dropout=True).train()
    reduced = tr.wrap(model, OPENED)
    assert not torch.equal(reduced(images_for(model)), reduced(images_for(model)))
    reduced.eval()
    assert not model.training
    assert torch.equal(reduced(images_for(model)), reduced(images_for(model)))


CHANGES: dict[str, Any] = {
    "CLIPEncoderLayer .* children: adapter": lambda b: b.add_module("adapter", nn.Identity()),
    "CLIPAttention .* children: q_norm": lambda b: b.self_attn.add_module("q_norm", nn.Identity()),
    "none of query, q_proj": lambda b: delattr(b.self_attn, "q_proj"),
    "attention MultiheadAttention": lambda b: setattr(b, "self_attn", nn.MultiheadAttention(32, 4)),
}


@pytest.mark.parametrize("message", CHANGES)
def test_changed_blocks_are_refused(message: str) -> None:
    model = build("hf: CLIPVisionModel")
    CHANGES[message](tower_of(model).encoder.layers[0])
    with pytest.raises(BackboneError, match=message):
        tr.wrap(model, NOTHING)


def test_other_blocks_are_refused() -> None:
    model = build("hf: Dinov2Model")
    model.encoder.layer[0] = nn.TransformerEncoderLayer(32, 4)
    with pytest.raises(BackboneError, match=r"TransformerEncoderLayer.*Dinov2Layer"):
        tr.wrap(model, NOTHING)
    model.encoder.layer = nn.ModuleList()
    with pytest.raises(BackboneError, match="has no blocks"):
        tr.wrap(model, NOTHING)


class Renamed(transformers.ViTModel):  # type: ignore[misc, name-defined]
    """Changes nothing that a forward does."""


class OwnForward(transformers.ViTModel):  # type: ignore[misc, name-defined]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def test_known_and_refused() -> None:
    config = build("hf: ViTModel").config
    assert tr.wrap(Renamed(config), SOME).info.name == "Renamed"
    with pytest.raises(BackboneError, match="overrides forward of ViTModel"):
        tr.wrap(OwnForward(config), SOME)
    with pytest.raises(BackboneError, match=r"ViTForMaskedImageModeling.*Known: .*Hugging Face"):
        tr.wrap(transformers.ViTForMaskedImageModeling(config), SOME)
    whole = transformers.CLIPModel(build("hf: CLIPForImageClassification").config).eval()
    with pytest.raises(BackboneError, match=r"wrap\(model\.vision_model"):
        tr.wrap(whole, SOME)
    images = images_for(whole.vision_model)
    same(tr.wrap(whole.vision_model, NOTHING)(images), whole.vision_model(images).pooler_output)


def test_transformers_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("hf: ViTModel")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert tr.wrap(model, SOME).info.num_patches == 16
    for file in Path(tr.backbones.__file__).parent.glob("huggingface*.py"):
        assert not re.search(
            r"^\s*(import|from) transformers", file.read_text("utf-8"), re.MULTILINE
        )


def test_the_model_stays(tmp_path: Path) -> None:
    model = build("hf: Dinov2ForImageClassification").eval()
    images = images_for(model)
    before = model(images).logits
    reduced = tr.wrap(model, SOME)
    expected = reduced(images)
    assert list(reduced.state_dict()) == list(model.state_dict())
    assert torch.equal(model(images).logits, before)
    assert reduced.config is model.config

    twin = copy.deepcopy(reduced)
    with torch.no_grad():
        model.classifier.weight.zero_()
    assert torch.equal(twin(images), expected)
    assert not torch.equal(reduced(images), expected)

    path = tr.save(twin, tmp_path / "reduced.safetensors")
    anew = hugging_face("Dinov2ForImageClassification", use_swiglu_ffn=True)
    again = tr.load(path, model=anew)
    assert again.strategy == SOME
    same(again(images), expected)

    reduced.classifier = nn.Linear(64, 2)
    assert reduced(images).shape == model(images).logits.shape == (2, 2)


# ---------------------------------------------------------------- heads and costs


def test_without_class_token() -> None:
    model = build("hf: SiglipVisionModel").eval()
    with pytest.raises(ConfigError, match="SiglipVisionModel"):
        tr.wrap(model, "evit")
    backbone = tr.wrap(model, NOTHING).backbone
    with pytest.raises(BackboneError, match="pools by attention cannot leave tokens out"):
        backbone.head(torch.zeros(1, 4, 32), weight=torch.ones(1, 4, requires_grad=True))


def test_pre_logits_and_hidden_states() -> None:
    model = build("hf: CLIPVisionModelWithProjection").eval()
    reduced, images = tr.wrap(model, NOTHING), images_for(model)
    pooled = reduced.forward_head(reduced.forward_features(images), pre_logits=True)
    torch.testing.assert_close(pooled, model.vision_model(images).pooler_output)
    torch.testing.assert_close(model.visual_projection(pooled), model(images).image_embeds)
    # What LLaVA reads: the tokens one block before the end, before any norm.
    kept = reduced.kept_tokens(images, layer=-2, norm=False)
    expected = model(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(torch.cat((kept.prefix, kept.tokens), dim=1), expected)


@pytest.mark.parametrize("form", HUGGING_FACE)
def test_counted_by_pytorch(form: str) -> None:
    model = build(f"hf: {form}").eval()
    for strategy in (NOTHING, tr.Strategy("Random", schedule=3)):
        reduced = tr.wrap(model, strategy)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            answer(reduced(images_for(model, 1)))
        assert reduced.cost().gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-6)


def test_closed_form() -> None:
    config = transformers.Dinov2Config(image_size=224, patch_size=14)
    with torch.device("meta"):
        model = transformers.Dinov2Model(config)
    c, n, gone = 768, 257, 8
    cost = tr.wrap(model, tr.strategy("gtp", P=gone)).cost()
    assert cost.layers[0].macs == 4 * n * c**2 + 2 * n**2 * c + 8 * (n - gone) * c**2
    assert cost.stem == 256 * 3 * 14 * 14 * c
