from __future__ import annotations

from typing import Any

import pytest

from tokenred.core.errors import ConfigError, DataError
from tokenred.data.class_map import imagenet_classes, resolve_classes

TENCH, GOLDFISH, LAST = "n01440764", "n01443537", "n15075141"


def test_rank_among_the_sorted_folders() -> None:
    assert resolve_classes({"dog", "cat"}, None, "here") == ({"cat": 0, "dog": 1}, ("cat", "dog"))


@pytest.mark.parametrize("class_map", [None, "imagenet-1k", 1000])
def test_wnids_get_their_rank_among_all_1000(class_map: Any) -> None:
    index, classes = resolve_classes({LAST, TENCH}, class_map, "here")

    assert index == {TENCH: 0, LAST: 999}
    assert classes == imagenet_classes()


def test_wnids_are_numbered_in_order_on_request() -> None:
    index, classes = resolve_classes({GOLDFISH, LAST}, "folders", "here")

    assert index == {GOLDFISH: 0, LAST: 1}
    assert classes == (GOLDFISH, LAST)


def test_wnids_beyond_imagenet_1k_are_numbered_in_order() -> None:
    assert resolve_classes({"n00000001", TENCH}, None, "here")[0] == {"n00000001": 0, TENCH: 1}


def test_a_mapping_leaves_unnamed_indices_empty() -> None:
    index, classes = resolve_classes({"cat"}, {"cat": 2, "dog": 0}, "here")

    assert index == {"cat": 2}
    assert classes == ("dog", "", "cat")


@pytest.mark.parametrize(
    ("folders", "class_map", "message"),
    [
        ({"cat", "emu"}, {"cat": 0}, "also has emu"),
        ({"cat"}, "imagenet-1k", "also has cat"),
        ({"cat", "dog"}, 3, "expected 3 class folders in here .* found 2"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    folders: set[str], class_map: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        resolve_classes(folders, class_map, "here")


@pytest.mark.parametrize("class_map", ["imagenet", 0, True, 1.5, {"cat": -1}, {"cat": "0"}])
def test_what_is_no_class_map_is_refused(class_map: Any) -> None:
    with pytest.raises(ConfigError, match="expected class_map"):
        resolve_classes({"cat"}, class_map, "here")
