"""``tokenred reproduce``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis.reproduction.experiments import TOLERANCES, finetuning


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_demo(run) -> None:  # type: ignore[no-untyped-def]
    result = run("reproduce", "--demo", "--limit", 5, "-e", "table6", "-o", "out")
    assert result.exit_code == 0, result.output
    assert "785 tokens (Table 6)" in result.stdout
    assert "table6" in result.stderr
    assert "no published figures" in result.stdout
    for name in ("results.db", "reproduction.csv", "reproduction.html"):
        assert (Path("out") / name).is_file()


def test_costs_that_differ(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    arguments = ("reproduce", "--costs", "-e", "table1", "-m", "DeiT-S")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    monkeypatch.setitem(TOLERANCES, "gmacs", {**TOLERANCES["gmacs"], "within": 0.01})
    result = run(*arguments)
    assert result.exit_code == 1
    assert "✗ table1, DeiT-S, gtp:P=8,theta=0.6: gmacs 3.42, published 3.40" in result.stdout
    frame = pd.read_csv("tokenred-out/reproduction/reproduction.csv")
    assert "✗" in set(frame["verdict"])


def test_the_commands_for_what_is_owed_are_right(run) -> None:  # type: ignore[no-untyped-def]
    _, _, *words = finetuning("vit", "gtp:P=8").split()
    known = run("finetune", "--help").stdout
    assert {word for word in words if word.startswith("--")} <= set(known.split())


def test_listing(run) -> None:  # type: ignore[no-untyped-def]
    result = run("reproduce", "--list")
    assert result.exit_code == 0
    assert "release-notes" in result.stdout
    assert not Path("tokenred-out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--imagenet"),
        (["--imagenet", "nowhere"], "nowhere"),
        (["--demo", "-e", "table9"], "unknown experiment 'table9'"),
        (["--costs", "--checkpoint", "DeiT-S"], "NAME=FILE"),
        (["--costs", "--checkpoint", "DeiT-S=none.pth"], "none.pth"),
    ],
)
def test_refused(run, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    result = run("reproduce", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("tokenred-out").exists()
