"""Outputs are never replaced by accident and never half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenred.analysis.files import check_new, prepare_folder, write_atomically
from tokenred.core.errors import DataError, OutputExistsError


def test_prepare(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    (path,) = prepare_folder(folder, ("x.csv",))
    assert path == folder / "x.csv"
    assert list(folder.iterdir()) == []
    write_atomically(path, b"1")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        prepare_folder(folder, ("y.csv", "x.csv"))
    prepare_folder(folder, ("y.csv",))
    prepare_folder(folder, ("x.csv",), overwrite=True)
    assert path.read_bytes() == b"1"


def test_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="got a file"):
        prepare_folder(tmp_path / "file", ("x",), overwrite=True)
    with pytest.raises(OutputExistsError):
        check_new(tmp_path, overwrite=True)
    with pytest.raises(DataError, match="choose another"):
        prepare_folder(tmp_path / "file" / "below", ("x",))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(target, 3)  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_half_a_character_is_written_out(tmp_path: Path) -> None:
    written = write_atomically(tmp_path / "a.csv", "θ \udcff")

    assert written.read_text(encoding="utf-8") == r"θ \udcff"
