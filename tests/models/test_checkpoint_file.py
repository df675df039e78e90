"""Weight files: what is written, read and refused, and what fits a model."""

import argparse
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer
from timm.utils import CheckpointSaver
from torch import nn

from tokenred.core.errors import (
    CheckpointError,
    CheckpointWarning,
    ConfigError,
    DataError,
    OutputExistsError,
    TokenredError,
)
from tokenred.models.checkpoint_file import load_strictly, read_checkpoint, save_checkpoint

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.float16)}
HALF = {name: value / 2 for name, value in STATE.items()}


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# ---------------------------------------------------------------- writing


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    tied = {**STATE, "strided": STATE["a"].T, "shared": STATE["a"]}
    path = save_checkpoint(tmp_path / "w.safetensors", tied, {"note": "x", "config": {"d": 1}})
    state, metadata = read_checkpoint(path)
    assert same(state, tied)
    assert state["b"].dtype == torch.float16
    assert (metadata["note"], json.loads(metadata["config"])) == ("x", {"d": 1})
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        save_checkpoint(path, STATE, {"n": "2"})
    assert read_checkpoint(path)[1] == metadata
    save_checkpoint(path, STATE, {"n": "2"}, overwrite=True)
    assert read_checkpoint(path)[1] == {"n": "2"}
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize(
    ("name", "state", "metadata", "error", "message"),
    [
        ("w.safetensors", {"a": 1}, {}, CheckpointError, "only tensors"),
        ("w.safetensors", STATE, {"x": object()}, CheckpointError, "JSON can hold"),
        ("w.pt", STATE, {}, ConfigError, r"ends in \.safetensors"),
        ("gone/w.safetensors", STATE, {}, DataError, "expected a folder"),
    ],
)
def test_what_cannot_be_saved_is_refused(
    tmp_path: Path, name: str, state: Any, metadata: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        save_checkpoint(tmp_path / name, state, metadata)
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_pytorch_files_of_tensors_are_read(
    tmp_path: Path, suffix: str, wrapper: str | None
) -> None:
    for prefix in ("", "module.", "_orig_mod.", "_orig_mod.module."):
        state: Any = {prefix + name: value for name, value in STATE.items()}
        torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / f"w{suffix}")
        found, metadata = read_checkpoint(tmp_path / f"w{suffix}")
        assert same(found, STATE)
        assert metadata == {}


@pytest.mark.parametrize("raw", ["state_dict", "model"])
@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema"])
def test_averaged_weights_of_a_training_are_taken_by_default(
    tmp_path: Path, raw: str, averaged: str
) -> None:
    path = tmp_path / "last.pth.tar"
    options = argparse.Namespace(model="vit", lr=0.1)
    torch.save({raw: STATE, averaged: HALF, "args": options, "epoch": 3}, path)
    with pytest.warns(CheckpointWarning, match=f"using those of '{averaged}'"):
        assert same(read_checkpoint(path)[0], HALF)
    assert same(read_checkpoint(path, use_ema=True)[0], HALF)
    assert same(read_checkpoint(path, use_ema=False)[0], STATE)
    torch.save({raw: STATE, averaged: None, "args": options}, path)
    assert same(read_checkpoint(path)[0], STATE)
    with pytest.raises(CheckpointError, match="expected averaged weights"):
        read_checkpoint(path, use_ema=True)


def test_what_timms_training_writes_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    saver = CheckpointSaver(
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        args=argparse.Namespace(model="linear"),
        model_ema=average,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, metric=1.0)
    path = tmp_path / "model_best.pth.tar"
    for use_ema in (True, False):
        ours = read_checkpoint(path, use_ema=use_ema)[0]
        assert same(ours, load_state_dict(str(path), use_ema=use_ema))
    assert same(read_checkpoint(path, use_ema=True)[0], average.state_dict())


class Runs:
    """A malicious pickle: something runs while it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    path, proof = tmp_path / "evil.pth", tmp_path / "ran"
    if legacy:
        path.write_bytes(pickle.dumps({"model": Runs(proof)}))
    else:
        torch.save({"model": Runs(proof)}, path)
    with pytest.raises(CheckpointError, match="convert it to safetensors"):
        read_checkpoint(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a state dict .* got list"),
        ({"epoch": 3}, "these are not: epoch"),
        ({"a": STATE["a"], "module.a": STATE["a"]}, "each weight once"),
        (nn.Linear(2, 2), "convert it to safetensors"),
    ],
)
def test_a_file_without_plain_weights_is_refused(
    tmp_path: Path, content: Any, message: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "w.pt")


def test_an_archive_that_unpacks_to_more_is_not_opened(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name))
        bomb.writestr("archive/data/9", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="was not opened"):
        read_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04" + bytes(64)])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(tmp_path / name)


def test_missing_and_strange_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "w.npz").touch()
    for name, message in (
        ("gone.pth", "found none"),
        ("folder.pth", "found none"),
        ("w.npz", "convert it to safetensors"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / name)
    for strange in (None, 3, b"w.pth"):
        with pytest.raises(CheckpointError, match="expected the path"):
            read_checkpoint(strange)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what fits


def vit(classes: int = 3, width: int = 8, depth: int = 2) -> VisionTransformer:
    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=1, num_classes=classes
    )


def test_weights_that_fit_are_loaded_in_the_models_own_dtype() -> None:
    model, other = vit(), vit()
    load_strictly(model, other.half().state_dict(), "file")
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(model.pos_embed, other.pos_embed.float())


def test_one_bad_weight_leaves_the_model_untouched() -> None:
    model, state = vit(), vit().state_dict()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del state["norm.bias"]
    state |= {"extra": torch.ones(1), "cls_token": torch.ones(1, 1, 9)}
    with pytest.raises(CheckpointError) as caught:
        load_strictly(model, state, "w.pth")
    for part in (
        "w.pth",
        "missing: norm.bias",
        "unexpected: extra",
        "cls_token is (1, 1, 9) but should be (1, 1, 8)",
    ):
        assert part in str(caught.value)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        *(
            ({k: v.to(dtype) for k, v in vit().state_dict().items()},
             f"of other type: .* is {dtype} but should be")
            for dtype in (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)
        ),
        (vit(classes=5).state_dict(), "Pass num_classes=5"),
        (vit(classes=0).state_dict(), "Pass num_classes=0"),
        (vit(width=16, depth=4).state_dict(), "and 18 more.*Choose the model"),
        ({"x": torch.ones(1)}, "unexpected: x"),
    ],
)  # fmt: skip
def test_other_weights_are_refused_with_advice(
    state: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(TokenredError, match=message):
        load_strictly(vit(), state, "file")
