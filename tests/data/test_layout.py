from __future__ import annotations

import pytest
from timm.utils.misc import natural_key

from tokenred.core.errors import DataError
from tokenred.data.layout import (
    HIDDEN,
    find_layout,
    natural,
    other_kind,
    pick_split,
    sort_out,
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("cat/0.png", ""),
        ("cat/0.JPEG", ""),
        ("cat/0.WebP", ""),
        ("cat/notes.TXT", ".txt"),
        ("cat/notes", "without an ending"),
        ("cat/.hidden.png", HIDDEN),
        ("__MACOSX/cat/0.png", HIDDEN),
        ("../cat/0.png", HIDDEN),
    ],
)
def test_what_is_no_image_has_a_kind(path: str, kind: str) -> None:
    assert other_kind(path) == kind


def test_images_are_sorted_out_and_the_others_counted() -> None:
    names, others = sort_out(["a/10.png", "a/9.png", "b.heic", "c.heic", ".DS_Store"])

    assert names == ["a/9.png", "a/10.png"]
    assert others == {".heic": 2, HIDDEN: 1}


def test_the_natural_order_is_timms() -> None:
    texts = ["10", "9", "a10b2", "A9", "a10b10", "b", "a", "x1", "x", "1x", "02", "1"]

    assert sorted(texts, key=natural) == sorted(sorted(texts), key=natural_key)


def test_the_natural_order_takes_any_text() -> None:
    assert sorted(["²", "1" * 5000, "\udcff", "01", "1", "", "a"], key=natural)


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
