from __future__ import annotations

from pathlib import Path

import pytest

from tokenred.core.files import write_whole


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(place: Path) -> None:
        place.write_text("ne")
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_has_the_rights_of_a_plain_file(tmp_path: Path) -> None:
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    plain.write_text("x")
    write_whole(whole, lambda place: place.write_text("x"))
    assert whole.stat().st_mode == plain.stat().st_mode
    assert whole.read_text() == "x"
