"""The command line, called as a user would, but within this process."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tokenred.cli import main

MOODY = '''
"""A scorer that fails when a file of the working folder says so."""

import os
from pathlib import Path

import torch
import tokenred as tr


@tr.register_scorer("Moody")
class Moody(tr.Scorer):
    """Later positions stay."""

    def __call__(self, state, attention):
        if Path("broken").exists():
            1 / 0
        if Path("full").exists() and len(state.x) == 2:
            raise torch.OutOfMemoryError("no room")
        if Path("calls").exists():
            left, signal = map(int, Path("calls").read_text().split())
            Path("calls").write_text(f"{left - 1} {signal}")
            if left == 0:
                os.kill(os.getpid(), signal)
        return state.index.to(state.x.dtype)
'''


@dataclass
class Result:
    """What a command left: its exit code, what it printed, and what it raised."""

    exit_code: int
    stdout: str
    stderr: str
    exception: BaseException | None = None

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def refusal(self) -> str:
        """The one line that says what was wrong."""
        assert self.exit_code == 2, self.output
        (line,) = self.stderr.splitlines()
        assert line.startswith("tokenred: "), line
        return line


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command; the working folder is the test's own."""
    for name in ("COLUMNS", "TOKENRED_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        code: object = 0
        raised: BaseException | None = None
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code
        except Exception as error:
            code, raised = 1, error
        assert isinstance(code, int)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err, raised)

    return call


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """Options for the scorer Moody, which fails on request."""
    (tmp_path / "moody.py").write_text(MOODY, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "--import", "moody.py"
    sys.modules.pop("moody", None)
