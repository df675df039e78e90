from __future__ import annotations

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
from timm.utils import CheckpointSaver
from torch import nn

from tokenred.core.errors import CheckpointError, CheckpointWarning, OutputExistsError
from tokenred.models import checkpoint_file
from tokenred.models.checkpoint_file import (
    check_writable,
    read_checkpoint,
    save_checkpoint,
)

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.float16)}


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", STATE, {"note": "x", "config": {"d": 1}})

    state, metadata = read_checkpoint(path)

    assert same(state, STATE)
    assert state["b"].dtype == torch.float16
    assert metadata["note"] == "x"
    assert json.loads(metadata["config"]) == {"d": 1}
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_shared_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    path = save_checkpoint(tmp_path / "w.safetensors", {"a": weight.T, "b": weight}, {})

    assert same(read_checkpoint(path)[0], {"a": weight.T, "b": weight})


def test_an_older_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", STATE, {"n": "1"})

    with pytest.raises(OutputExistsError, match="overwrite=True"):
        save_checkpoint(path, STATE, {"n": "2"})
    assert read_checkpoint(path)[1] == {"n": "1"}

    save_checkpoint(path, STATE, {"n": "2"}, overwrite=True)
    assert read_checkpoint(path)[1] == {"n": "2"}


def test_a_failure_while_writing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    path = save_checkpoint(tmp_path / "w.safetensors", STATE, {"n": "1"})
    monkeypatch.setattr(checkpoint_file, "save", fail)

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, STATE, {"n": "2"}, overwrite=True)
    assert os.listdir(tmp_path) == ["w.safetensors"]
    assert read_checkpoint(path)[1] == {"n": "1"}


@pytest.mark.parametrize(
    ("state", "metadata", "message"),
    [({"a": 1}, {}, "only tensors"), (STATE, {"x": object()}, "JSON can hold")],
)
def test_what_cannot_be_saved_is_refused(
    tmp_path: Path, state: Any, metadata: Any, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / "w.safetensors", state, metadata)
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written_is_seen_beforehand(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"ending in \.safetensors"):
        check_writable(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="expected a folder"):
        check_writable(tmp_path / "gone" / "w.safetensors")
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(OutputExistsError):
        check_writable(tmp_path / "d.safetensors", overwrite=True)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_pytorch_files_of_tensors_are_read(
    tmp_path: Path, suffix: str, wrapper: str | None, prefix: str
) -> None:
    state: Any = {prefix + name: value for name, value in STATE.items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / f"w{suffix}")

    state, metadata = read_checkpoint(tmp_path / f"w{suffix}")

    assert same(state, STATE)
    assert metadata == {}


HALF = {name: value / 2 for name, value in STATE.items()}


@pytest.mark.parametrize("raw", ["state_dict", "model"])
@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema"])
def test_a_trainings_averaged_weights_are_taken_unless_told_otherwise(
    tmp_path: Path, raw: str, averaged: str
) -> None:
    path = tmp_path / "last.pth.tar"
    options = argparse.Namespace(model="vit", lr=0.1)
    torch.save({raw: STATE, averaged: HALF, "args": options, "epoch": 3}, path)
    with pytest.warns(CheckpointWarning, match=f"those of '{averaged}' are taken"):
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


def test_a_weight_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    torch.save({"a": STATE["a"], "module.a": STATE["a"]}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="each weight once"):
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


class Runs:
    """What a malicious pickle does: something runs while it is opened."""

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


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="convert it to safetensors"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "expected a state dict .* got list"), ({"epoch": 3}, "these are none: epoch")],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04" + bytes(64)])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(tmp_path / name)


def test_missing_and_strange_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found none"):
        read_checkpoint(tmp_path / "gone.pth")
    for strange in (None, 3, b"w.pth"):
        with pytest.raises(CheckpointError, match="expected the path"):
            read_checkpoint(strange)  # type: ignore[arg-type]
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match="found none"):
        read_checkpoint(tmp_path / "folder.pth")
    (tmp_path / "w.npz").touch()
    with pytest.raises(CheckpointError, match="convert it to safetensors"):
        read_checkpoint(tmp_path / "w.npz")
