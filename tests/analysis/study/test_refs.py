"""References to models and data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import tokenred as tr
from tokenred.analysis.study import refs
from tokenred.analysis.study.refs import read_data, read_model, stamp_of
from tokenred.core.errors import ConfigError


def test_models(digits: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_model("digits").label == "digits"
    assert read_model(digits).label == "digits_vit"
    assert read_model(digits).module is digits
    assert read_model(tr.wrap(digits, "gtp")).label == "digits_vit"
    assert read_model(nn.Linear(1, 1)).label == "Linear"
    Path("w.safetensors").touch()
    ref = read_model({"spec": "vit_tiny_patch16_224", "checkpoint": "w.safetensors"})
    assert ref.label == "vit_tiny_patch16_224 (w)"
    # Another folder is no reason for another file.
    assert ref.arguments["checkpoint"] == str(tmp_path / "w.safetensors")
    assert read_model(Path("w.safetensors")).label == "w"


def test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENRED_DATA", ".")
    (tmp_path / "images").mkdir()
    ref = read_data("./images", "val", None)
    assert (ref.label, ref.arguments["source"]) == ("images", str(tmp_path / "images"))
    assert ref.arguments["split"] == "val"
    assert read_data({"source": "digits", "split": "train"}, "val", None).arguments["split"] == (
        "train"
    )
    assert read_data("digits", None, None).path() is not None
    for given in ("cifar10", "cifar10:images/.."):
        assert read_data(given, None, None).arguments["source"] == f"cifar10:{tmp_path}"
    dataset = tr.data.open_dataset("digits")
    assert read_data(dataset, None, None).dataset is dataset
    assert read_data(dataset, None, None).stamp() is None


@pytest.mark.parametrize("given", [3, {"name": "digits"}, None])
def test_no_models(given: Any) -> None:
    with pytest.raises(ConfigError, match="expected a model"):
        read_model(given)


@pytest.mark.parametrize("given", [3, {"path": "digits"}, {"source": "digits", "limit": 3}])
def test_no_data(given: Any) -> None:
    with pytest.raises(ConfigError, match="expected data"):
        read_data(given, None, None)


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all files had been written long ago."""
    monkeypatch.setattr(refs, "_SETTLED", -1.0)


@pytest.mark.usefixtures("_settled")
def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"1")
    before = stamp_of(path)
    assert stamp_of(path) == before
    path.write_bytes(b"22")
    changed = stamp_of(path)
    assert changed != before
    os.utime(path, ns=(1, 1))
    assert stamp_of(path) not in (before, changed)
    assert read_model(str(path)).stamp() != read_model("digits").stamp()


@pytest.mark.usefixtures("_settled")
def test_a_stamp_changes_with_the_images_of_a_folder(tmp_path: Path) -> None:
    image = tmp_path / "val" / "cat" / "a.png"
    image.parent.mkdir(parents=True)
    image.touch()
    ref = read_data(tmp_path, None, None)
    seen = {ref.stamp()}
    for change in (
        image.with_name("b.png").touch,
        image.unlink,
        (image.parent.parent / "x.png").touch,
    ):
        change()
        # Two changes within the clock's tick look the same; real ones are further apart.
        os.utime(image.parent, ns=(len(seen), len(seen)))
        seen.add(ref.stamp())
    assert len(seen) == 4
