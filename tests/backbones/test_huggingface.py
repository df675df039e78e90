"""Hugging Face vision towers: nothing removed is nothing changed, and methods run."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import tokenred as tr
from tokenred.core.errors import BackboneError, InputError

transformers = pytest.importorskip("transformers")

from tests.backbones.hf_models import (  # noqa: E402
    FORMS,
    NOTHING,
    SOME,
    agree,
    answer,
    gradients,
    images_for,
    matter,
    tower_of,
    with_dropout,
)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---------------------------------------------------------------- nothing removed


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_nothing_removed(form: str, training: bool, lively: Any, same: Any) -> None:
    model = matter(lively(with_dropout(form, 0.2))).train(training)
    reduced, images = tr.wrap(model, NOTHING), images_for(model)
    outputs = []
    for run in (reduced, model, reduced.forward_features, tower_of(model)):
        torch.manual_seed(1)  # both draw the same dropout
        outputs.append(run(images))
    same(outputs[0], answer(outputs[1]))
    same(outputs[2], outputs[3].last_hidden_state)
    agree(gradients(reduced, outputs[0]), gradients(model, answer(outputs[1])), 1e-5)


def test_other_sizes(build: Any, same: Any) -> None:
    model = build("Dinov2ForImageClassification").eval()
    reduced = tr.wrap(model, NOTHING)
    for height, width in ((40, 24), (51, 33)):  # the rest of a patch is cut off
        images = torch.randn(2, 3, height, width)
        same(reduced(images), model(images).logits)
        assert reduced.kept_tokens(images).grid == (height // 8, width // 8)
    assert reduced.cost((40, 24)).layers[0].tokens_in == 15
    with pytest.raises(InputError, match="at least one patch"):
        reduced(torch.randn(2, 3, 4, 40))


# ---------------------------------------------------------------- tokens go


def test_tokens_go(form: str, build: Any) -> None:
    model = build(form).train()
    images = images_for(model)
    reduced = tr.wrap(model, SOME)
    output, trace = reduced.run_with_trace(images)
    patches, prefix = reduced.info.num_patches, reduced.info.num_prefix
    assert trace.tokens_per_layer == (patches - 3, patches - 6, patches - 9)
    tokens = form.endswith(("without pooler", "without head"))
    expected = list(answer(model(images)).shape)
    if tokens:
        expected[1] -= 9
    assert list(output.shape) == expected
    assert output.isfinite().all()
    if not tokens:
        assert (output - answer(model(images))).abs().max() > 1e-3
    kept = reduced.kept_tokens(images)
    assert torch.equal(kept.tokens, reduced.forward_features(images)[:, prefix:])
    assert kept.index.shape == (2, patches - 9)
    assert kept.prefix.shape[1] == prefix
    output.sum().backward()
    tower = tower_of(model)
    assert all(p.grad is not None for p in getattr(tower, "encoder", tower.embeddings).parameters())


@pytest.mark.parametrize("method", ["tome", "evit", "idlevit", "ats", "evo-vit", "random"])
@pytest.mark.parametrize("form", ["DeiT with teacher", "Dinov2WithRegistersModel"])
def test_methods(form: str, method: str, build: Any) -> None:
    model = build(form).eval()
    images = images_for(model)
    with torch.no_grad():
        output = tr.wrap(model, method)(images)
        assert output.isfinite().all()
        assert not torch.equal(output, answer(model(images)))


# ---------------------------------------------------------------- about it


def test_the_model_stays(build: Any, tmp_path: Path, same: Any) -> None:
    model = build("Dinov2ForImageClassification").eval()
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
    again = tr.load(path, model=FORMS["Dinov2ForImageClassification"]())
    assert again.strategy == SOME
    same(again(images), expected)

    reduced.classifier = nn.Linear(64, 2)
    assert reduced(images).shape == model(images).logits.shape == (2, 2)


def test_one_graph(build: Any, same: Any) -> None:
    model = build("CLIPVisionModel").eval()
    reduced, images = tr.wrap(model, SOME), images_for(model)
    model(images)
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled: Any = torch.compile(reduced, fullgraph=True, backend=graphs)
    with torch.no_grad():
        same(compiled(images), reduced(images))
    assert graphs.frame_count == 1
    torch._dynamo.reset()


def test_images_are_checked(build: Any) -> None:
    reduced = tr.wrap(build("ViTModel"), NOTHING)
    with pytest.raises(InputError, match="must be 32×32, got 32×40"):
        reduced(torch.randn(1, 3, 32, 40))
    with pytest.raises(InputError, match=r"\(batch, 3, height, width\), got \(3, 32, 32\)"):
        reduced(torch.randn(3, 32, 32))
    with pytest.raises(InputError, match=r"got dict.*\['pixel_values'\]"):
        reduced({"pixel_values": torch.randn(1, 3, 32, 32)})
    with pytest.raises(InputError, match="uint8"):
        reduced(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert reduced.bfloat16()(torch.randn(1, 3, 32, 32).bfloat16()).dtype == torch.bfloat16


class Renamed(transformers.ViTModel):  # type: ignore[misc, name-defined]
    """Changes nothing that a forward does."""


class OwnForward(transformers.ViTModel):  # type: ignore[misc, name-defined]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def test_known_and_refused(build: Any) -> None:
    config = build("ViTModel").config
    assert tr.wrap(Renamed(config), SOME).info.name == "Renamed"
    with pytest.raises(BackboneError, match="own forward, not ViTModel's"):
        tr.wrap(OwnForward(config), SOME)
    with pytest.raises(BackboneError, match=r"ViTForMaskedImageModeling.*Known: .*Hugging Face"):
        tr.wrap(transformers.ViTForMaskedImageModeling(config), SOME)


def test_whole_clip(build: Any, same: Any) -> None:
    config = build("CLIPForImageClassification").config
    whole = transformers.CLIPModel(config).eval()
    with pytest.raises(BackboneError, match=r"wrap\(model\.vision_model"):
        tr.wrap(whole, SOME)
    images = images_for(whole.vision_model)
    same(tr.wrap(whole.vision_model, NOTHING)(images), whole.vision_model(images).pooler_output)


def test_transformers_is_not_imported(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("ViTModel")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert tr.wrap(model, SOME).info.num_patches == 16
    for file in Path(tr.backbones.__file__).parent.glob("huggingface*.py"):
        assert not re.search(
            r"^\s*(import|from) transformers", file.read_text("utf-8"), re.MULTILINE
        )
