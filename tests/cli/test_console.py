"""Where the commands print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from tokenred.cli.console import make_console, say_written


def test_a_file_is_wide(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    make_console().print("x" * 139)
    assert capsys.readouterr().out == "x" * 139 + "\n"


def test_unless_somebody_says_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    console = make_console()
    assert console.width == 60
    console.print("3 of 4, 0.5", style="bold")
    assert capsys.readouterr().out == "3 of 4, 0.5\n"  # no colours in a file


@pytest.mark.parametrize("text", ["o3[/b]", "[bold]x", "[red]", ":smile:", "\\[x"])
def test_what_users_wrote_is_no_markup(capsys: pytest.CaptureFixture[str], text: str) -> None:
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    console = make_console()
    console.print(table)
    say_written(console, Path(text))
    assert capsys.readouterr().out.count(text) == 4


@pytest.mark.parametrize(
    ("prefix", "code"),
    [({"PYTHONIOENCODING": "ascii"}, 0), ({}, 1)],
    ids=["an ASCII terminal", "a reader that leaves"],
)
def test_files_are_there_however_the_printing_ends(
    tmp_path: Path, prefix: dict[str, str], code: int
) -> None:
    out = tmp_path / "o[/b]"
    command = ["compare", "--no-timing", "--limit", "10", "-s", "gtp:P=6", "-s", "topk", "--out"]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-m", "tokenred", *command, str(out)],
        stdout=subprocess.PIPE,
        env=os.environ | prefix | {"PYTHONPATH": root},
    ) as running:
        assert running.stdout is not None
        if code:
            running.stdout.close()
        else:
            assert b"o[/b]" in running.stdout.read()
        assert running.wait() == code
    assert sorted(path.name for path in out.iterdir()) == ["comparison.csv", "tradeoff.png"]
