from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from timm.data.readers.reader_image_folder import ReaderImageFolder

from tests.shared import shared_path
from tokenred.core.errors import DataError, DataWarning
from tokenred.data import open_dataset
from tokenred.data.cifar10 import CIFAR10_CLASSES, DATA_VARIABLE

SPLITS = ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png")


@pytest.mark.parametrize(("split", "count"), [(None, 360), ("test", 360), ("train", 1437)])
def test_digits_are_embedded(split: str | None, count: int) -> None:
    data = open_dataset("digits", split=split)

    assert len(data) == count
    assert data.classes == tuple("0123456789")
    assert data.name == "digits"
    assert data[0][0].shape == (3, 32, 32)


def test_a_folder(make_tree: Callable[..., Path]) -> None:
    data = open_dataset(make_tree())

    assert data.classes == ("cat", "dog")
    assert data.labels == (0, 0, 1)
    assert data.name == "pictures"
    assert data.name_of(2) == "dog/0.png"


def test_folder_and_archives_agree(
    make_tree: Callable[..., Path], pack: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    root = make_tree(SPLITS)
    folder, packed = (open_dataset(source, split="test") for source in (root, pack(root, tmp_path)))

    assert packed.classes == folder.classes == ("cat", "dog")
    assert packed.labels == folder.labels == (0, 1)
    assert packed.name_of(1) == "test/dog/0.png"
    for index in range(2):
        assert packed[index][0].equal(folder[index][0])


def test_archives_without_images_are_refused(
    make_tree: Callable[..., Path], pack: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    root = make_tree([])
    (root / "readme.txt").write_text("nothing here")

    with pytest.raises(DataError, match=r"found none but 1 × \.txt"):
        open_dataset(pack(root, tmp_path))


def test_a_zip_by_any_name(make_tree: Callable[..., Path], tmp_path: Path) -> None:
    import shutil

    packed = Path(shutil.make_archive(str(tmp_path / "a"), "zip", make_tree()))

    assert len(open_dataset(packed.rename(tmp_path / "blob"))) == 3


def test_wnids_are_ranked_among_all_classes(make_tree: Callable[..., Path]) -> None:
    data = open_dataset(make_tree(["n01440764/0.png", "n15075141/0.png"]))

    assert data.labels == (0, 999)
    assert len(data.classes) == 1000


def test_a_class_map_is_handed_on(make_tree: Callable[..., Path]) -> None:
    assert open_dataset(make_tree(), class_map={"cat": 5, "dog": 3}).labels == (5, 5, 3)


@pytest.mark.parametrize("source", ["", None, 3])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(DataError, match="name or path of a dataset"):
        open_dataset(source)


def test_a_misspelt_name_gets_a_hint() -> None:
    with pytest.raises(DataError, match=r"Did you mean 'digits'\?"):
        open_dataset("digit")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected images in .*, found none"):
        open_dataset(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b")

    with pytest.raises(DataError, match=r"got the file .*table\.csv"):
        open_dataset(tmp_path / "table.csv")


@pytest.mark.parametrize("top", ["", "test/", "cifar10-test/", "cifar10/test/"])
def test_extracted_cifar10_in_any_layout(
    make_tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, top: str
) -> None:
    root = make_tree([f"{top}{name}/0.png" for name in CIFAR10_CLASSES])
    monkeypatch.setenv(DATA_VARIABLE, str(root))

    source = "cifar10" if "cifar10" in top else f"cifar10:{root}"
    data = open_dataset(source)

    assert data.name == "cifar10"
    assert data.labels == tuple(range(10))


def test_other_classes_are_not_cifar10(make_tree: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="also has emu"):
        open_dataset(f"cifar10:{make_tree(['test/emu/0.png', 'test/cat/0.png'])}")


def test_the_shared_cifar10() -> None:
    data = open_dataset(f"cifar10:{shared_path('data', 'cifar10-test.zip')}")

    assert len(data) == 10_000
    assert data.classes == CIFAR10_CLASSES
    assert data[9_999][0].shape == (3, 32, 32)


def test_the_shared_photographs() -> None:
    data = open_dataset(shared_path("data", "imagenet-sample-250.zip"), class_map=1000)

    assert data.labels == tuple(range(0, 1000, 4))


def test_what_is_left_out_is_counted_named_and_warned_about(
    make_tree: Callable[..., Path], pack: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    root = make_tree()
    for name in ("cat/1.heic", "cat/2.HEIC", "notes", "dog/.DS_Store"):
        (root / name).write_bytes(b"")

    with pytest.warns(DataWarning, match=r"2 × \.heic, 1 × without an ending"):
        data = open_dataset(pack(root, tmp_path))

    assert data.left_out == {".heic": 2, "without an ending": 1, "hidden": 1}
    assert "left_out={" in repr(data)


def test_numbered_class_folders_have_timms_order(make_tree: Callable[..., Path]) -> None:
    root = make_tree([f"{number}/0.png" for number in range(12)])

    data = open_dataset(root)

    assert data.classes == tuple(map(str, range(12)))
    reader = ReaderImageFolder(str(root))
    assert {name: rank for rank, name in enumerate(data.classes)} == reader.class_to_idx
