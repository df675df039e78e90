"""Ctrl-C and SIGTERM in the middle of a command."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tokenred.analysis import journal
from tokenred.analysis.measure import accuracy

ASK = (
    "compare",
    "--no-timing",
    "--limit",
    60,
    "--batch-size",
    10,
    "-s",
    "gtp:P=4",
    "-s",
    "tome:r=4",
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stop_after(batches: int, how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = accuracy._ranked

    def ranked(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) > 3 * batches:  # three models
            how()
        return real(*arguments)

    monkeypatch.setattr(accuracy, "_ranked", ranked)


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("how", "code"), [(interrupt, 130), (terminate, 143)])
def test_a_stopped_comparison_goes_on_to_the_same_rows(  # type: ignore[no-untyped-def]
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: Any, code: int
) -> None:
    whole = run(*ASK, "--out", "whole")
    assert whole.exit_code == 0, whole.output
    with monkeypatch.context() as patch:
        stop_after(3, how, patch)
        stopped = run(*ASK, "--out", "cut")
    assert stopped.exit_code == code
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["comparison.jsonl"]
    (line,) = stopped.stderr.splitlines()
    again = shlex.split(line.partition("Go on with: tokenred ")[2])
    assert again == [*map(str, ASK), "--out", "cut", "--resume"]

    refused = run(*ASK, "--out", "cut")
    assert (refused.exit_code, "--resume" in refused.stderr) == (2, True)
    other = run(*ASK, "--seed", 1, "--out", "cut", "--resume")
    assert (other.exit_code, "began otherwise (seed)" in other.stderr) == (2, True)

    with monkeypatch.context() as patch:
        stop_after(3, pytest.fail, patch)  # no batch is run twice
        assert run(*again).exit_code == 0
    frames = [pd.read_csv(tmp_path / name / "comparison.csv") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*frames)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [
        "comparison.csv",
        "tradeoff.png",
    ]


def test_speeds_are_kept(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    ask = [word for word in ASK if word != "--no-timing"] + ["--pairs", 2, "--out", "cut"]
    with monkeypatch.context() as patch:
        stop_after(0, interrupt, patch)
        assert run(*ask).exit_code == 130
    kept = journal.read_results("cut/comparison.jsonl")[1]["speeds"]["timings"]
    assert run(*ask, "--resume").exit_code == 0
    frame = pd.read_csv("cut/comparison.csv")
    assert frame["speedup"].tolist() == pytest.approx([timing["speedup"] for timing in kept])


def test_what_keeps_nothing_says_so(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("tokenred.models.load_model", lambda *_, **__: interrupt())
    result = run("oversmoothing", "--limit", 2)
    assert (result.exit_code, result.stderr) == (130, "tokenred: stopped; nothing was written.\n")


def test_two_runs_into_one_place(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from tokenred.core.lock import output_lock

    (tmp_path / "out").mkdir()
    with output_lock(tmp_path / "out"), output_lock(tmp_path / "page.html"):
        for command in (
            ["compare", "--out", "out"],
            ["bench", "-o", "out"],
            ["oversmoothing", "-o", "out"],
            ["agreement", "-o", "out"],
            ["finetune", "-s", "gtp:P=4", "--epochs", 1, "-o", "out"],
            ["report", "a.csv", "-o", "page.html"],
        ):
            result = run(*command)
            assert result.exit_code == 2, (command, result.output)
            assert f"process {os.getpid()} on" in result.stderr, command
    assert list((tmp_path / "out").iterdir()) == []
