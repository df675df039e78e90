"""Whatever a file says, it is loaded as what was saved or refused with an error of tokenred's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tokenred.core.errors import CheckpointError, TokenredError
from tokenred.core.tensors import state_digest
from tokenred.models import load_model, read_checkpoint

Saved = tuple[dict[str, torch.Tensor], dict[str, str], torch.Tensor]
IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
FEW = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.text(max_size=5), st.floats(), st.integers()),
    st.sampled_from([0, -1, 10**9, 10**30, 1e300, float("nan"), float("inf"), "é" * 300, ""]),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
HOSTILE = st.sampled_from(
    [
        *("checkpoint_path", "pretrained", "cache_dir", "features_only", "pretrained_cfg", "name"),
        *("pretrained_cfg_overlay", "scriptable", "act_layer", "norm_layer", "block_fn", "device"),
        *("embed_layer", "mlp_layer", "weight_init", "img_size", "patch_size", "depth", "kind"),
        *("embed_dim", "num_heads", "mlp_ratio", "num_classes", "in_chans", "reg_tokens", "recipe"),
        *("drop_path_rate", "init_values", "global_pool", "arguments", "scorer", "steps", "mean"),
    ]
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3
    )
    reduced = tr.wrap(model.eval(), tr.strategy("gtp", P=2, M=2))
    path = tr.save(reduced, tmp_path_factory.mktemp("saved") / "m.safetensors")
    weights, metadata = read_checkpoint(path)
    return weights, metadata, reduced(IMAGES)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values inside a value."""
    inner: Any = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


def changed(value: Any, data: st.DataObject) -> Any:
    """A value with something in it replaced, added or taken out."""
    value = json.loads(json.dumps(value))
    *way, last = data.draw(st.sampled_from(places(value)[1:] or [(None,)]))
    holder = value
    for key in way:
        holder = holder[key]
    action = data.draw(st.sampled_from(["replace", "add", "remove"]))
    if last is None or (action == "replace" and data.draw(st.booleans()) and not way):
        return data.draw(VALUES)
    if action == "remove":
        del holder[last]
    elif action == "add" and isinstance(holder, dict):
        holder[data.draw(HOSTILE | st.text(max_size=5))] = data.draw(VALUES)
    else:
        holder[last] = data.draw(VALUES)
    return value


@FEW
@given(data=st.data())
def test_metadata_of_any_content(saved: Saved, tmp_path: Path, data: st.DataObject) -> None:
    weights, metadata, logits = saved
    name = data.draw(st.sampled_from(sorted(metadata)))
    try:
        value = json.loads(metadata[name])
    except ValueError:
        text = data.draw(st.text(max_size=20))
    else:
        text = json.dumps(changed(value, data))
        if data.draw(st.integers(0, 9)) == 0:
            text = text[: data.draw(st.integers(0, len(text)))]
    path = tmp_path / "m.safetensors"
    save_file(weights, path, {**metadata, name: text})
    try:
        again = tr.load(path)
    except TokenredError:
        return
    if name != "strategy":
        torch.testing.assert_close(again(IMAGES), logits, rtol=0, atol=0)


@FEW
@given(data=st.data())
def test_a_config_of_any_content(saved: Saved, tmp_path: Path, data: st.DataObject) -> None:
    weights, _, _ = saved
    plain = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
    config = changed({**plain, "num_classes": 3}, data)
    preprocessing = changed({"mean": [0.5, 0.5, 0.5], "input_size": [3, 16, 16]}, data)
    metadata = {"config": json.dumps(config), "preprocessing": json.dumps(preprocessing)}
    path = tmp_path / "w.safetensors"
    save_file(weights, path, metadata)
    try:
        load_model(path)
    except TokenredError:
        return


@FEW
@given(data=st.data())
def test_bytes_of_any_kind(saved: Saved, tmp_path: Path, data: st.DataObject) -> None:
    weights, metadata, logits = saved
    path = tmp_path / "m.safetensors"
    save_file(weights, path, metadata)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content)))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at : at + 1] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)
    try:
        again = tr.load(path)
    except TokenredError:
        return
    torch.testing.assert_close(again(IMAGES), logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda v, t=t: v.to(t) for t in (torch.int8, torch.bool, torch.complex64, torch.uint8)),
        *(lambda v, t=t: v.to(t) for t in (torch.float8_e5m2, torch.float64, torch.float16)),
        lambda v: v[..., :1].clone(),
        lambda v: v[None].clone(),
        lambda v: v + 1e-6,
    ],
)
@pytest.mark.parametrize("name", ["pos_embed", None])
def test_weights_of_another_kind(saved: Saved, tmp_path: Path, change: Any, name: Any) -> None:
    weights, metadata, _ = saved
    other = {k: change(v) if name in (None, k) else v for k, v in weights.items()}
    path = tmp_path / "m.safetensors"
    save_file(other, path, metadata)
    with pytest.raises(CheckpointError):
        tr.load(path)
    # Nor where the file says so of itself, if it is another model then.
    if other["head.weight"].shape == (3, 8) and other["head.weight"].dtype.is_floating_point:
        return
    save_file(other, path, {**metadata, "weights": state_digest(other)})
    with pytest.raises(CheckpointError):
        tr.load(path)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "hf-hub:someone/model",
            "local-dir:/tmp/model",
            "hf_hub:a/b",
            "vit_none",
            "../x",
            "resnet",
        ),
        *("vit_tiny_patch16_224.nothing", "vit_tiny_patch16_224\n", "vit_giant_patch14_224"),
    ],
)
def test_no_model_is_fetched_or_built_too_large(saved: Saved, tmp_path: Path, name: str) -> None:
    weights, metadata, _ = saved
    base = json.dumps({"kind": "timm", "name": name, "arguments": {}})
    save_file(weights, tmp_path / "m.safetensors", {**metadata, "base": base})
    with pytest.raises(CheckpointError):
        tr.load(tmp_path / "m.safetensors")


def test_a_file_of_an_earlier_form_is_refused(saved: Saved, tmp_path: Path) -> None:
    weights, metadata, _ = saved
    save_file(weights, tmp_path / "m.safetensors", {**metadata, "format": "tokenred/1"})
    with pytest.raises(CheckpointError, match="tokenred/2"):
        tr.load(tmp_path / "m.safetensors")
