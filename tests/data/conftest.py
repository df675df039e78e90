"""Small picture sets in every form that the readers know."""

import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

MakeTree = Callable[..., Path]
Pack = Callable[..., Path]

CATS_AND_DOGS = ("cat/0.png", "cat/1.png", "dog/0.png")
ARCHIVES = (".zip", ".tar")


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Write one picture a path; its red value is its position in the list."""

    def make(paths: Sequence[str] = CATS_AND_DOGS, name: str = "pictures") -> Path:
        root = tmp_path / name
        root.mkdir()
        for value, path in enumerate(paths):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (value, 0, 0)).save(root / path)
        return root

    return make


@pytest.fixture
def pack() -> Pack:
    """Pack a folder into an archive beside it, and return that."""

    def into(root: Path, suffix: str) -> Path:
        archive = root.with_name(f"packed{suffix}")
        if suffix == ".zip":
            with zipfile.ZipFile(archive, "w") as target:
                for file in sorted(file for file in root.rglob("*") if file.is_file()):
                    target.write(file, file.relative_to(root).as_posix())
        else:
            with tarfile.open(archive, "w") as target:
                target.add(root, ".")
        return archive

    return into
