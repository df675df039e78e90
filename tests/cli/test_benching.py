"""``tokenred bench``: measures, resumes, draws."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.cli.conftest import Run

FEW = ("bench", "-s", "topk", "-s", "tome@0.7", "-n", 1, "-n", 2, "--pairs", 2)


def test_measures_and_goes_on_behind_an_earlier_run(run: Run) -> None:
    few = (*FEW, "--output", "new/out")
    result = run(*few, "--split", "--threads", 1)
    assert result.exit_code == 0, result.output
    for words in ("digits, images 32x32", "tome@0.7", "where the time goes", "2 pairs",
                  "realised fraction"):  # fmt: skip
        assert words in result.stdout
    folder = Path("new/out")
    frame = pd.read_csv(folder / "results.csv")
    assert list(zip(frame["strategy"], frame["batch_size"], strict=True)) == [
        ("topk", 1), ("tome@0.7", 1), ("topk", 2), ("tome@0.7", 2),
    ]  # fmt: skip
    assert frame["split_mlp"].gt(0).all()
    assert (folder / "break_even.png").read_bytes().startswith(b"\x89PNG")

    assert "--overwrite" in run(*few).refusal
    again = run(*few, "-n", 4, "--split", "--threads", 1, "--resume")
    assert again.exit_code == 0, again.output
    frames = frame, pd.read_csv(folder / "results.csv").head(4)
    assert frames[0]["speedup"].tolist() == frames[1]["speedup"].tolist()
    assert len(pd.read_csv(folder / "results.csv")) == 6
    assert run(*few, "--overwrite").exit_code == 0
    assert len(pd.read_csv(folder / "results.csv")) == 4


def test_a_dry_run_writes_nothing(run: Run) -> None:
    result = run(*FEW, "--image-size", 33, "--image-size", 32, "--image-size", "32x64", "--dtype",
                 "bfloat16", "--compile", "no", "--compile", "yes", "--dry-run")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.count("To do: ") == 16
    assert "Not possible: " in result.stdout
    for words in ("32x64", "bfloat16", "compile"):
        assert words in result.stdout
    assert not list(Path().iterdir())


def test_a_failed_cell_shows_and_the_rest_is_written(run: Run, moody: tuple[str, ...]) -> None:
    Path("full").touch()
    result = run(*FEW, *moody, "-s", "topk:scorer=Moody")
    assert result.exit_code == 1
    assert "Out of memory: digits, topk:scorer=Moody, batch 2" in result.stdout
    frame = pd.read_csv("tokenred-out/bench/results.csv")
    assert len(frame[frame["speedup"].notna()]) == 5


def test_the_chart_of_an_earlier_run(run: Run) -> None:
    assert run(*FEW, "-o", "out").exit_code == 0
    Path("out/results.db").rename("earlier.db")
    result = run("bench", "--chart", "earlier.db")
    assert result.exit_code == 0, result.output
    assert "tome@0.7" in result.stdout
    assert Path("earlier.png").read_bytes().startswith(b"\x89PNG")
    assert "--overwrite" in run("bench", "--chart", "earlier.db").refusal
    assert run("bench", "--chart", "earlier.db", "--output", "there").exit_code == 0
    assert Path("there/break_even.png").is_file()
