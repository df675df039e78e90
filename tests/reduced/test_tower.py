"""Reduced Hugging Face towers, called as that library and its users call them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import tokenred as tr
from tests.backbones.forms import HUGGING_FACE, TEXT, hugging_face, images_for
from tokenred.core.errors import BackboneError, InputError

transformers = pytest.importorskip("transformers")


NOTHING, TWO, SOME = (tr.strategy("gtp", P=count, M=4) for count in (0, 2, 3))
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
VISION = SIZES | {"image_size": 32, "intermediate_size": 48}


@pytest.fixture(params=HUGGING_FACE)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return hugging_face(request.param, **HUGGING_FACE[request.param]).eval()


@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True}], ids=["", "hidden states"])
def test_nothing_removed_gives_the_models_own_output(model: Any, options: dict[str, Any]) -> None:
    images, reduced = images_for(model), tr.wrap(model, NOTHING)
    if "ImageClassification" in type(model).__name__ and "Teacher" not in type(model).__name__:
        options = options | {"labels": torch.tensor([1, 4])}
    got = reduced(pixel_values=images, **options)
    expected = model(pixel_values=images, **options)
    assert type(got) is type(expected)
    assert list(got) == list(expected)
    torch.testing.assert_close(got.to_tuple(), expected.to_tuple())
    as_tuple = reduced(images, return_dict=False, **options)
    torch.testing.assert_close(as_tuple, expected.to_tuple())


def test_with_fewer_tokens_the_output_holds_those_left(model: Any) -> None:
    images, reduced = images_for(model), tr.wrap(model, SOME)
    output = reduced(pixel_values=images, output_hidden_states=True)
    _, trace = reduced.run_with_trace(images)
    counts = [hidden.shape[1] - reduced.info.num_prefix for hidden in output.hidden_states]
    assert counts == [reduced.info.num_patches, *trace.tokens_per_layer]
    # By position there is one tensor, as of every reduced model, and it is in the output.
    one = reduced(images)
    assert any(torch.equal(one, value) for value in output.to_tuple() if torch.is_tensor(value))
    again = reduced.with_strategy("topk" if reduced.info.num_prefix else "gtp")
    assert type(again(pixel_values=images)) is type(output)


def test_other_sizes_where_they_are_asked_for(model: Any) -> None:
    if type(model).__name__.startswith("Dinov2"):
        pytest.skip("takes every size")
    if images_for(model).shape[2] != images_for(model).shape[3]:
        pytest.skip("transformers interpolates square grids only")
    reduced, images = tr.wrap(model, NOTHING), torch.randn(1, 3, 40, 48)
    with pytest.raises(InputError, match="interpolate_pos_encoding=True"):
        reduced(pixel_values=images)
    with pytest.raises(InputError, match="images must be"):
        reduced(images)
    if "interpolate_pos_encoding" in str(type(model).forward.__wrapped__.__code__.co_varnames):
        expected = model(pixel_values=images, interpolate_pos_encoding=True)
        got = reduced(pixel_values=images, interpolate_pos_encoding=True)
        torch.testing.assert_close(got.to_tuple(), expected.to_tuple())
    fewer = tr.wrap(model, SOME)(pixel_values=images, interpolate_pos_encoding=True)
    assert isinstance(fewer, transformers.utils.ModelOutput)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"output_attentions": True}, "no attention maps of all tokens"),
        ({"head_mask": torch.ones(3)}, "head_mask: not accepted"),
        ({"labels": torch.zeros(2).long()}, "ViTModel has no loss"),
        ({"images": torch.zeros(2, 3, 32, 32)}, "got two"),
        ({"pixel_values": None, "return_dict": True}, "got none"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_means_nothing_is_refused(call: dict[str, Any], message: str) -> None:
    reduced = tr.wrap(hugging_face("ViTModel").eval(), TWO)
    with pytest.raises(InputError, match=message):
        reduced(**{"pixel_values": torch.zeros(2, 3, 32, 32)} | call)


def test_hooks_on_the_base_are_not_passed_over() -> None:
    model = hugging_face("ViTModel").eval()
    reduced, images = tr.wrap(model, TWO), torch.zeros(1, 3, 32, 32)
    model.register_forward_hook(lambda module, inputs, output: output * 0)
    assert not reduced(images).any()
    with pytest.raises(BackboneError, match="Register them on the reduced model"):
        reduced(pixel_values=images)


def test_half_precision_takes_images_as_the_model_does() -> None:
    model = hugging_face("ViTModel").eval().bfloat16()
    output = tr.wrap(model, TWO)(pixel_values=torch.zeros(1, 3, 32, 32))
    assert output.last_hidden_state.dtype == torch.bfloat16


def test_inside_clip() -> None:
    config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT)
    clip, images = transformers.CLIPModel(config).eval(), torch.randn(2, 3, 32, 32)
    calls = {"input_ids": torch.tensor([[1, 5, 6, 2]] * 2), "pixel_values": images}
    expected = clip(**calls).logits_per_image
    tower = clip.vision_model
    clip.vision_model = tr.wrap(tower, NOTHING)
    torch.testing.assert_close(clip(**calls).logits_per_image, expected)
    clip.vision_model = tr.wrap(tower, TWO)
    assert not torch.allclose(clip(**calls).logits_per_image, expected)


def test_inside_llava_the_language_model_reads_the_tokens_left() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = transformers.LlamaConfig(**sizes, intermediate_size=32, vocab_size=99)
    vision = transformers.CLIPVisionConfig(**VISION)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=98)
    llava = transformers.LlavaForConditionalGeneration(config).eval()
    llava.model.vision_tower = tr.wrap(llava.model.vision_tower, TWO)
    # hidden_states[-2] is read: two blocks have taken two tokens each of 16.
    ids = torch.tensor([[1] + [98] * 12] * 2)
    assert llava(input_ids=ids, pixel_values=torch.randn(2, 3, 32, 32)).logits.shape == (2, 13, 99)


def test_a_trainer_trains_it(tmp_path: Path) -> None:
    state = pytest.importorskip("accelerate.state")
    torch.manual_seed(0)
    model = hugging_face("Dinov2ForImageClassification")
    reduced, before = tr.wrap(model, TWO), copy.deepcopy(model.state_dict())
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": i % 5, "name": i} for i in range(8)]
    settings = transformers.TrainingArguments(
        tmp_path, max_steps=2, per_device_train_batch_size=4, report_to=[], save_strategy="no",
        use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    transformers.Trainer(reduced, settings, train_dataset=rows).train()
    state.AcceleratorState._reset_state(True)  # or no other precision can follow in this process
    assert any(not torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_pipeline_runs_it() -> None:
    from PIL import Image

    model = hugging_face("DeiTForImageClassification").eval()
    size = {"height": 32, "width": 32}
    classify = transformers.pipeline(
        "image-classification",
        model=tr.wrap(model, TWO),
        image_processor=transformers.ViTImageProcessor(size=size),
    )
    found = classify(Image.new("RGB", (40, 40)), top_k=5)
    assert sorted(row["label"] for row in found) == sorted(model.config.id2label.values())


def test_compiled_as_called_an_average_counts_merged_tokens_by_size() -> None:
    model = hugging_face("CLIPForImageClassification", num_hidden_layers=2).eval()
    reduced, images = tr.wrap(model, tr.strategy("tome", r=3)), torch.randn(2, 3, 32, 32)
    compiled = torch.compile(reduced, backend="eager", fullgraph=True)
    got = compiled(pixel_values=images, output_hidden_states=True)
    torch.testing.assert_close(got.logits, reduced(images))
    assert [hidden.shape[1] for hidden in got.hidden_states] == [17, 14, 11]
