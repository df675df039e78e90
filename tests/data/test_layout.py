from __future__ import annotations

import pytest

from tokenred.core.errors import DataError
from tokenred.data.layout import find_layout, is_image, pick_split


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cat/0.png", True),
        ("cat/0.JPEG", True),
        ("cat/notes.txt", False),
        ("cat/.hidden.png", False),
        ("__MACOSX/cat/0.png", False),
        ("cat/._0.png", False),
    ],
)
def test_is_image(path: str, expected: bool) -> None:
    assert is_image(path) is expected


def test_classes_without_splits() -> None:
    layout = find_layout(["cat/0.png", "dog/0.png"], None, "here")

    assert layout.folders == ("cat", "dog")
    assert layout.members == (0, 1)


@pytest.mark.parametrize(
    ("split", "members"),
    [(None, (2,)), ("val", (2,)), ("validation", (2,)), ("test", (1,)), ("train", (0,))],
)
def test_the_split_asked_for_is_taken(split: str | None, members: tuple[int, ...]) -> None:
    paths = ["train/cat/0.png", "test/cat/0.png", "val/cat/0.png"]

    layout = find_layout(paths, split, "here")

    assert layout.members == members
    assert layout.folders == ("cat",)


def test_wrapping_folders_are_stepped_into() -> None:
    layout = find_layout(["a/b/train/cat/0.png", "a/b/test/dog/0.png"], "test", "here")

    assert layout.folders == ("dog",)


def test_the_class_is_the_folder_below_the_split_however_deep() -> None:
    paths = ["train/n1/images/0.png", "train/n2/images/0.png"]

    assert find_layout(paths, None, "here").folders == ("n1", "n2")


def test_a_class_may_be_called_test() -> None:
    assert find_layout(["test/0.png", "exam/0.png"], None, "here").folders == ("test", "exam")


def test_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="expected images in here, found none"):
        find_layout([], None, "here")


def test_images_outside_a_class_folder_are_refused() -> None:
    with pytest.raises(DataError, match=r"'1\.png' in none \(1 such\)"):
        find_layout(["cat/0.png", "1.png"], None, "here")


def test_a_split_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(DataError, match="'train' in here, found the splits val, test"):
        find_layout(["val/cat/0.png", "test/cat/0.png"], "train", "here")


def test_a_split_where_there_are_none_is_refused() -> None:
    with pytest.raises(DataError, match="leave split out"):
        find_layout(["cat/0.png", "dog/0.png"], "test", "here")


def test_pick_split_knows_names_of_the_users_own() -> None:
    assert pick_split(["easy", "train"], "easy", "here") == "easy"
