"""Errors are one line on stderr, with exit code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import Result

import tokenred
from tokenred.core.errors import TokenredError, UnknownNameError


def test_version(run) -> None:  # type: ignore[no-untyped-def]
    result: Result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == f"tokenred {tokenred.__version__}"


def test_no_command_shows_help(run) -> None:  # type: ignore[no-untyped-def]
    result: Result = run()
    assert "compare" in result.output
    assert "list" in result.output


def test_an_error_is_one_line(run) -> None:  # type: ignore[no-untyped-def]
    result: Result = run("list", "scorer_s")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: unknown kind of part 'scorer_s'. Did you mean 'scorers'")


@pytest.mark.parametrize("by_variable", [False, True])
def test_traceback_on_demand(run, monkeypatch, by_variable: bool) -> None:  # type: ignore[no-untyped-def]
    if by_variable:
        monkeypatch.setenv("TOKENRED_TRACEBACK", "1")
    result: Result = run(*([] if by_variable else ["--traceback"]), "list", "nothing")
    assert isinstance(result.exception, UnknownNameError)


def test_as_a_module() -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tokenred", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    assert call("--version").stdout.startswith("tokenred ")
    failed = call("compare", "--strategy", "nothing")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert "unknown strategy 'nothing'" in failed.stderr
    assert issubclass(TokenredError, Exception)
