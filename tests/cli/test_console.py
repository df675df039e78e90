"""Where the commands print."""

from __future__ import annotations

import pytest

from tokenred.cli.console import make_console


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
