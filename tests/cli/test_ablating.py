"""``tokenred ablate`` on the embedded model and data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tokenred.analysis.study.errors import StudyInterruptedError
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.store import Store

FEW = ("--base", "gtp:P=6", "--limit", 10)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_prints_the_best_first_and_writes_a_csv(run: Any, tmp_path: Path) -> None:
    arguments = ("ablate", *FEW, "-a", "alpha=0.05,0.1", "-a", "graph=mixed,Spatial()",
                 "-a", "scorer.aggregate=max", "-o", "a.csv")  # fmt: skip
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    for words in ("(dense)", "points from dense", "0.05", "Spatial()", "10 images of digits",
                  "4 cells, 4 different results", "Written: a.csv"):  # fmt: skip
        assert words in result.stdout, words
    frame = pd.read_csv("a.csv")
    assert frame["alpha"].tolist() == [0.05, 0.05, 0.1, 0.1]
    assert {"difference", "difference_low", "difference_high"} <= set(frame.columns)
    store = tmp_path / "tokenred-out" / "ablation.db"
    with Store(store, readonly=True) as found:
        assert len(found) == 5
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert run(*arguments, "--overwrite").exit_code == 0


def test_a_study_file_and_options_before_it(run: Any, tmp_path: Path) -> None:
    Path("mine.toml").write_text(
        """
        [study]
        base = "gtp:P=6"
        model = "digits"
        limit = 500
        against = "base"
        [axes]
        alpha = [0.05, 0.1]
        M = [4, 8]
        """
    )
    result = run("ablate", "mine.toml", "--limit", 12, "-a", "M=8", "--rows", 1)
    assert result.exit_code == 0, result.output
    assert "(base)" in result.stdout
    assert "2 cells" in result.stdout
    assert "12 images" in result.stdout
    with Store(tmp_path / "mine.db", readonly=True) as store:
        assert {row["study"] for row in store.rows()} == {"mine"}


def test_dry_run(run: Any, tmp_path: Path) -> None:
    result = run("ablate", "-a", "P=4,30,5", "--invalid", "skip", "--dry-run", "--rows", 2)
    assert result.exit_code == 0, result.output
    for words in ("gtp:P=4", "0.0472", "to do", "ScheduleError", "… and 1 more",
                  "3 cells: 2 to do, 1 skipped. Nothing was run."):  # fmt: skip
        assert words in result.stdout.replace("\n", " "), words
    assert not list(tmp_path.iterdir())


def test_failed_cells_show_in_the_exit_code(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenred.analysis.study.worker import Runner

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "_measure", lambda *_: 1 / 0)
        result = run("ablate", *FEW, "-a", "alpha=0.1", "--against", "none")
        assert result.exit_code == 1
        assert "failed: gtp:P=6,alpha=0.1: ZeroDivisionError" in result.stdout
    assert run("ablate", *FEW, "-a", "alpha=0.1", "--against", "none").exit_code == 1
    again = run("ablate", *FEW, "-a", "alpha=0.1", "--against", "none", "--retry-failed")
    assert again.exit_code == 0, again.output


def test_an_interrupt_says_how_to_go_on(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise StudyInterruptedError("stopped: start the same grid again to go on.")

    monkeypatch.setattr(Grid, "run", stop)
    result = run("ablate", *FEW, "-a", "alpha=0.1")
    assert result.exit_code == 130
    assert result.stderr == "tokenred: stopped: start the same grid again to go on.\n"


def test_values_on_the_command_line(run: Any) -> None:
    result = run("ablate", "-a", "alpha=(0.1,)*8", "--dry-run")
    assert result.exit_code == 2
    result = run(
        "ablate", "-a", "base=gtp,tome", "-a", "base=evit:keep_rate=0.5,fuse=false",
        "-a", "dtype=float32,amp:bfloat16", "-a", "alpha=(0.1,0.1,0.1,0.1,0.2,0.2,0.2,0.2)",
        "--dry-run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "6 cells: 6 to do" in result.stdout
    assert "evit:keep_rate=0.5,fuse=false" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-a", "alpha"], "NAME=VALUE"),
        (["-a", "alpha="], "NAME=VALUE"),
        (["-a", "alpha=[0.1"], "KEY=VALUE"),
        (["-a", "alfa=0.1"], "Did you mean 'alpha'"),
        (["-a", "P=4,60"], "cell 1, gtp:P=60"),
        (["--model", "vit_tiny_patch16_224", "-a", "P=4"], "--data"),
        (["--engine", "rey", "-a", "P=4"], "Did you mean 'ray'"),
        (["--against", "all", "-a", "P=4"], "reference"),
        (["--metric", "acuracy", "-a", "P=4"], "metric"),
        (["none.toml"], "cannot read the study file"),
        (["--store", ".", "-a", "P=4"], "got a folder"),
        (["--sort", "nothing", "-a", "P=4", "--limit", "5"], "column"),
    ],
)
def test_refused(run: Any, arguments: list[str], message: str) -> None:
    result = run("ablate", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: ")


def test_the_second_start_imports_little(run: Any, tmp_path: Path) -> None:
    """timm alone takes longer to import than a finished grid may take."""
    arguments = ["ablate", *map(str, FEW), "-a", "alpha=0.05,0.1", "--store", "a.db"]
    assert run(*arguments).exit_code == 0
    program = (
        "import sys; from tokenred.cli.app import app; app(sys.argv[1:], standalone_mode=False); "
        "print([m for m in ('timm', 'torchvision', 'pandas', 'scipy', 'ray') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "[]"
    assert "2 cells" in found.stdout
