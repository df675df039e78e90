"""Hugging Face datasets, with a small double of the library's interface."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import tokenred as tr
from tokenred.core.errors import ConfigError, DataError, MissingExtraError
from tokenred.data import open_dataset, open_huggingface


class Image:
    """The type of an image column; the library's is called so, too."""


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.num_classes = len(names)


class Value:
    pass


class Double:
    """Columns and their types, as a ``datasets.Dataset`` gives them."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any], title: str = "toy"):
        self._columns = columns
        self.features = features
        self.info = SimpleNamespace(dataset_name=title)
        self.read: list[str] = []

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            self.read.append(key)
            return self._columns[key]
        return {name: values[key] for name, values in self._columns.items()}

    def with_format(self, kind: None) -> Double:
        return self

    def select_columns(self, names: list[str]) -> Double:
        return Double({name: self._columns[name] for name in names}, self.features)


def picture(shade: int, side: int = 32) -> Pillow.Image:
    return Pillow.new("RGB", (side, side), (shade, shade, shade))


def toy(labels: list[Any], names: list[str] | None = None, images: list[Any] | None = None) -> Any:
    images = [picture(10 * i) for i in range(len(labels))] if images is None else images
    kind = ClassLabel(names) if names else Value()
    return Double({"image": images, "label": labels}, {"image": Image(), "label": kind})


def test_a_dataset_object() -> None:
    rows = toy([1, 0, 1], ["cat", "dog"])
    data = open_dataset(rows)
    assert (data.labels, data.classes, data.name) == ((1, 0, 1), ("cat", "dog"), "hf:toy")
    image, label, index = data[2]
    assert (label, index) == (1, 2)
    assert image.mean().item() == pytest.approx(20 / 255)
    assert data.name_of(2) == "hf:toy[2]"
    # Labels are read as a column, so that no image is decoded for them.
    assert rows.read == ["label"]
    assert pickle.loads(pickle.dumps(data)).labels == data.labels
    # Labels without names, and names without numbers.
    assert open_dataset(toy([2, 0])).classes == ("0", "1", "2")
    named = open_dataset(toy(["dog", "cat", "dog"]))
    assert (named.labels, named.classes) == ((1, 0, 1), ("cat", "dog"))


def encoded(shade: int) -> bytes:
    buffer = io.BytesIO()
    picture(shade).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_in_every_form(tmp_path: Any) -> None:
    picture(40).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    images = [
        picture(40),
        picture(40).convert("L"),
        encoded(40),
        {"bytes": encoded(40), "path": None},
        {"bytes": None, "path": path},
        np.full((32, 32, 3), 40, np.uint8),
        {"bytes": b"torn", "path": None},
    ]
    data = open_dataset(toy([0] * 7, ["only"], images))
    for index in range(6):
        image, label, _ = data[index]
        assert (tuple(image.shape), label) == ((3, 32, 32), 0)
        assert image.mean().item() == pytest.approx(40 / 255)
    assert data[6][1] == -1
    assert "UnidentifiedImageError" in str(data.why_unreadable(6))


def test_columns_are_found_by_their_types() -> None:
    shades = [picture(1), picture(2)]
    columns = {"id": ["a", "b"], "img": shades, "fine": [1, 0]}
    features = {"id": Value(), "img": Image(), "fine": ClassLabel(["x", "y"])}
    assert open_dataset(Double(columns, features)).labels == (1, 0)
    columns["coarse"] = [0, 0]
    features["coarse"] = ClassLabel(["z"])
    with pytest.raises(DataError, match="one label column in hf:toy, found fine, coarse among id"):
        open_dataset(Double(columns, features))
    assert open_huggingface(Double(columns, features), label="coarse").classes == ("z",)
    with pytest.raises(DataError, match="column 'labels' in hf:toy, found id, img, fine, coarse"):
        open_huggingface(Double(columns, features), label="labels")
    with pytest.raises(DataError, match="one image column in hf:toy, found none"):
        open_dataset(Double({"label": [0]}, {"label": ClassLabel(["x"])}))


def test_class_maps() -> None:
    rows = toy([0, 1], ["dog", "cat"])
    # The dataset's own numbers, not the rank of the names.
    for class_map in (None, 2, "folders"):
        assert open_dataset(rows, class_map=class_map).labels == (0, 1)
    assert open_dataset(rows, class_map={"dog": 7, "cat": 3}).labels == (7, 3)
    for wrong, error, message in (
        (10, DataError, "10 classes in hf:toy for a model of 10 classes, found 2"),
        ("imagenet-21k", ConfigError, "class_map"),
        ("imagenet-1k", DataError, "1000 classes"),
    ):
        with pytest.raises(error, match=message):
            open_dataset(rows, class_map=wrong)
    wnids = open_dataset(toy([1, 0], ["n15075141", "n01440764"]), class_map=1000)
    assert (wnids.labels, len(wnids.classes)) == ((0, 999), 1000)


def test_splits_of_a_dictionary() -> None:
    parts = {"train": toy([0], ["a"]), "validation": toy([0, 0], ["a"]), "extra": toy([0], ["a"])}
    assert len(open_dataset(parts)) == 2
    assert open_dataset(parts, split="train").name == "hf:toy/train"
    assert open_dataset({"extra": parts["extra"]}).name == "hf:toy/extra"
    with pytest.raises(DataError, match="among train, validation, extra, got 'test'"):
        open_dataset(parts, split="test")


def test_refused() -> None:
    class Stream:
        features: Any = None
        column_names = ("image", "label")

        def __iter__(self) -> Iterator[None]:
            yield None

    source: Any
    for source, message in (
        (Stream(), "got a stream"),
        (toy([-1, -1], ["a", "b"]), "no labels"),
        (toy([None, 1]), "no labels"),
        (toy([2], ["a", "b"]), "below 2 in hf:toy, got 2"),
        ("hf:", "name or path"),
    ):
        with pytest.raises(DataError, match=message):
            open_dataset(source)


def test_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    hub: Any = ModuleType("datasets")
    hub.get_dataset_split_names = lambda name, config: ["train", "test", "validation"]

    def load_dataset(name: str, config: str | None, split: str) -> Any:
        if name == "no/such":
            raise FileNotFoundError("nothing there")
        asked.append((name, config, split))
        return toy([0, 1], ["a", "b"])

    hub.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert open_dataset("hf:org/toys").name == "hf:org/toys"
    open_dataset("hf:org/toys:small", split="train[:10]")
    hub.get_dataset_split_names = lambda name, config: ["odd"]
    open_dataset("hf:org/toys")
    # One split only is ever asked for: others may be big.
    assert asked == [
        ("org/toys", None, "validation"),
        ("org/toys", "small", "train[:10]"),
        ("org/toys", None, "odd"),
    ]
    with pytest.raises(DataError, match=r"'no/such' on .* FileNotFoundError: nothing there"):
        open_dataset("hf:no/such", split="test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="pip install datasets"):
        open_dataset("hf:org/toys")


def test_a_model_is_evaluated_on_it() -> None:
    own = open_dataset("digits")
    images = [own.source.image(i) for i in range(20)]
    rows = toy(list(own.labels[:20]), [str(i) for i in range(10)], [*images])
    model = tr.models.load_model("digits")
    found = tr.evaluate(model, rows, progress=False)
    own.source.labels = own.labels = own.labels[:20]  # the same images only
    assert found.prediction.tolist() == tr.evaluate(model, own, progress=False).prediction.tolist()
    with pytest.raises(DataError, match="10 classes in hf:toy for a model"):
        tr.evaluate(model, toy([0], ["a"]), progress=False)
