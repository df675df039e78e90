"""``tokenred report`` and ``tokenred reproduce``."""

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Run
from tokenred.analysis.reproduction.experiments import TOLERANCES, finetuning
from tokenred.cli.app import app

CSV = (
    "strategy,method,gmacs,top1,model,data,images\ndense,dense,2,80,ViT,x,9\ngtp,gtp,1,79,ViT,x,9\n"
)


def test_one_file_and_several(run: Run) -> None:
    Path("a.csv").write_text(CSV)
    Path("b.csv").write_text(CSV.replace("gtp", "tome"))
    assert run("report", "a.csv").stdout == "Written: report.html\n"
    assert "ViT on x" in Path("report.html").read_text()
    assert run("report", "a.csv", "b.csv", "-o", "both.html", "--title", "Two").exit_code == 0
    text = Path("both.html").read_text()
    assert "<title>Two</title>" in text
    assert "b.csv: Results" in text


def test_reproduce_the_demo(run: Run) -> None:
    result = run("reproduce", "--demo", "--limit", 5, "-e", "table6", "-o", "out")
    assert result.exit_code == 0, result.output
    assert "785 tokens (Table 6)" in result.stdout
    assert "table6" in result.stderr
    assert "no published figures" in result.stdout
    for name in ("results.db", "reproduction.csv", "reproduction.html"):
        assert Path("out", name).is_file()


def test_costs_and_figures_that_differ_show_in_the_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "gmacs", {**TOLERANCES["gmacs"], "within": 0.01})
    result = run("reproduce", "--costs", "-e", "table1", "-m", "DeiT-S")
    assert result.exit_code == 1
    assert "✗ table1, DeiT-S, gtp:P=8,theta=0.6: gmacs 3.42, published 3.40" in result.stdout
    frame = pd.read_csv("tokenred-out/reproduction/reproduction.csv")
    assert set(frame.loc[frame["verdict"] != "not run", "metric"]) == {"gmacs"}
    assert "Written: tokenred-out/reproduction/reproduction.csv" in result.stdout


def test_experiments_are_listed_and_the_commands_for_what_is_missing_are_right(run: Run) -> None:
    result = run("reproduce", "--list")
    assert result.exit_code == 0
    assert "release-notes" in result.stdout
    assert not Path("tokenred-out").exists()
    _, *words = finetuning("vit", "gtp:P=8").split()
    app.parse_args(words)
