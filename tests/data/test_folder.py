from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenred.core.errors import DataError
from tokenred.data.folder import FolderSource, narrow_to_split


def test_names_are_relative_and_in_natural_order(make_tree: Callable[..., Path]) -> None:
    source = FolderSource(make_tree(["cat/10.png", "cat/9.png", "ant/0.png"]))

    assert source.names == ["ant/0.png", "cat/9.png", "cat/10.png"]
    assert source.name(1) == "cat/9.png"
    assert source.image(1).getpixel((0, 0)) == (1, 0, 0)


def test_it_pickles(make_tree: Callable[..., Path]) -> None:
    source = pickle.loads(pickle.dumps(FolderSource(make_tree())))

    assert source.image(0).size == (8, 6)


def test_hidden_files_and_empty_folders_give_nothing(make_tree: Callable[..., Path]) -> None:
    assert len(FolderSource(make_tree(["cat/.0.png"]))) == 0
    assert len(FolderSource(make_tree([], name="empty"))) == 0


def test_narrowing_steps_into_the_split(make_tree: Callable[..., Path]) -> None:
    root = make_tree(["train/cat/0.png", "val/cat/0.png"])

    assert narrow_to_split(root, "train") == (root / "train", None)
    assert narrow_to_split(root, None) == (root / "val", None)


def test_narrowing_leaves_what_it_does_not_see(make_tree: Callable[..., Path]) -> None:
    root = make_tree(["wrapped/val/cat/0.png", "wrapped/val/dog/0.png"])

    assert narrow_to_split(root, "val") == (root, "val")
    assert narrow_to_split(root, None) == (root, None)


def test_a_folder_that_cannot_be_listed_is_refused(
    make_tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, so the refusal of the system is acted.
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(DataError, match="Permission denied; check its permissions"):
        narrow_to_split(make_tree(), None)
