"""Files that are whole or not there, with what lies beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenred.core.errors import ConfigError, DataError, OutputExistsError
from tokenred.export.place import check_place, write_checked


def test_write_moves_all_files_the_main_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = []
    replace = os.replace

    def noted(source: object, target: object) -> None:
        moved.append(Path(str(target)))
        replace(source, target)  # type: ignore[arg-type]

    def write(draft: Path) -> str:
        assert draft.name == "a.onnx"
        draft.write_text("one")
        draft.with_name("a.onnx.data").write_text("three")
        draft.with_name("b").write_text("")
        assert not (tmp_path / "a.onnx").exists()
        return "done"

    monkeypatch.setattr(os, "replace", noted)
    assert write_checked(tmp_path / "a.onnx", write) == ("done", 8)
    monkeypatch.undo()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data", "b"]
    assert (tmp_path / "a.onnx").read_text() == "one"
    assert moved[-1] == tmp_path / "a.onnx"


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_text("older")

    def write(draft: Path) -> None:
        draft.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checked(path, write)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    assert path.read_text() == "older"


def test_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.onnx"
    assert check_place(path, ".onnx") == path
    assert path.parent.is_dir()
    with pytest.raises(ConfigError, match=r"ending in \.onnx, got 'a\.pt2'"):
        check_place(tmp_path / "a.pt2", ".onnx")
    path.write_text("")
    with pytest.raises(OutputExistsError):
        check_place(path, ".onnx")
    assert check_place(path, ".onnx", overwrite=True) == path
    path.unlink()
    (tmp_path / "new" / "a.onnx.data").write_text("")
    assert check_place(path, ".onnx") == path
    with pytest.raises(OutputExistsError, match=r"a\.onnx\.data"):
        check_place(path, ".onnx", ".onnx.data")


def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((DataError, OutputExistsError)):
        check_place(tmp_path / "file" / "a.onnx", ".onnx")
    with pytest.raises(DataError, match="choose another folder"):
        check_place("/proc/no-such/a.onnx", ".onnx")
