from __future__ import annotations

import os
import pickle
import socket
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
    hidden = FolderSource(make_tree(["cat/.0.png", ".cats/0.png"]))
    assert (len(hidden), hidden.left_out) == (0, {"hidden": 2})
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


LOOPS = {
    "to the parent": ["a/l ..", "b/l .."],
    "to itself": ["a/l ."],
    "to the other class": ["a/l ../b", "b/l ../a"],
    "to above the root": ["a/l ../.."],
    "through one another": ["a/1 ../b", "a/2 ../b", "b/1 ../a", "b/2 ../a", "b/3 a", "a/3 2"],
}


@pytest.mark.parametrize("links", LOOPS.values(), ids=LOOPS)
def test_links_in_circles_give_each_image_once(
    make_tree: Callable[..., Path], links: list[str]
) -> None:
    root = make_tree(["a/0.png", "b/0.png"])
    for link in links:
        at, to = link.split()
        (root / at).symlink_to(to)

    source = FolderSource(root)

    assert source.names == ["a/0.png", "b/0.png"]
    assert sum(source.left_out.values()) == len(links)


def test_links_to_folders_and_files_elsewhere_are_followed(make_tree: Callable[..., Path]) -> None:
    there = make_tree(["tabby/0.png"], name="there")
    root = make_tree(["dog/0.png"])
    (root / "cat").symlink_to(there / "tabby")
    (root / "dog/1.png").symlink_to(there / "tabby/0.png")

    assert FolderSource(root).names == ["cat/0.png", "dog/0.png", "dog/1.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_what_is_no_regular_file_is_counted(
    make_tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(["a/0.PNG", "a/0.webp"])
    (root / "a/notes.txt").write_text("")
    os.mkfifo(root / "a/1.png")
    (root / "a/2.png").symlink_to("/nowhere")
    (root / "a/3.png").symlink_to("3.png")
    monkeypatch.chdir(root / "a")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("4.png")

    source = FolderSource(root)

    assert source.names == ["a/0.PNG", "a/0.webp"]
    assert source.left_out == {".txt": 1, "FIFO, socket or device": 2, "link to nothing": 2}
