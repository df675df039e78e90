"""The file of a sweep outlives whoever is killed while writing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenred.analysis.sweeps.log import append_result, read_results
from tokenred.core.errors import DataError

ROWS = [{"key": "a", "status": "done", "ms": 0.1}, {"key": "b", "status": "failed", "error": "é"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.jsonl"
    for row in ROWS:
        append_result(path, row)
    return path


def test_there_and_back(path: Path) -> None:
    assert read_results(path) == ROWS
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_cut_off_line_is_left_out_and_replaced(path: Path, cut: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert read_results(path) == ROWS[:1]
    append_result(path, ROWS[1])
    assert path.read_bytes() == whole


def test_a_cut_off_first_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_result(path, ROWS[0])
    for content in (path.read_bytes()[:20], b'{"k', b""):
        path.write_bytes(content)
        assert read_results(path) == []
        append_result(path, ROWS[0])
        assert read_results(path) == ROWS[:1]


@pytest.mark.parametrize(
    "content", ["mine", "mine\n", '{"key": "a"}\n', "[1]\n", "3\n", "\n", '{"key": "a"\n{}\n']
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(content)
    with pytest.raises(DataError, match="choose another file"):
        read_results(path)
    assert path.read_text() == content


def test_a_torn_tail_of_another_kind_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"notes of mine")
    with pytest.raises(DataError, match="line 3"):
        read_results(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_results(tmp_path / "none.jsonl")


def test_figures_must_be_numbers(path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        append_result(path, {"key": "c", "status": "done", "ms": float("nan")})
    assert read_results(path) == ROWS
