"""``tokenred bench``: measures, resumes, draws, and refuses before it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.analysis.sweeps.rows import make_row
from tokenred.analysis.sweeps import running
from tokenred.analysis.sweeps.log import append_result, read_results

FEW = ("-s", "topk", "-s", "tome@0.7", "-n", 1, "-n", 2, "--pairs", 2)
FILES = ["break_even.png", "results.csv", "results.jsonl"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_writes_results_table_and_chart(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("bench", *FEW, "--split", "--threads", 1, "--output", "new/out")
    assert result.exit_code == 0, result.output
    for words in ("digits, images 32x32", "tome@0.7", "where the time goes", "2 pairs",
                  "realised fraction"):  # fmt: skip
        assert words in result.stdout
    folder = tmp_path / "new" / "out"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    rows = read_results(folder / "results.jsonl")
    assert [(row["strategy"], row["batch_size"]) for row in rows] == [
        ("topk", 1), ("tome@0.7", 1), ("topk", 2), ("tome@0.7", 2),
    ]  # fmt: skip
    assert pd.read_csv(folder / "results.csv")["split_mlp"].gt(0).all()
    assert (folder / "break_even.png").read_bytes().startswith(b"\x89PNG")


def test_options_reach_the_sweep(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    asked: list[Any] = []

    def stop(*args: Any, **options: Any) -> None:
        asked.append((args, options))
        raise running.ConfigError("far enough")

    monkeypatch.setattr(running, "sweep", stop)
    run("bench", "--model", "a", "--model", "b", "-s", "evit", "-n", 4, "--image-size", 64,
        "--image-size", "32x64", "--dtype", "bfloat16", "--compile", "no", "--compile", "yes",
        "--compile", "max-autotune", "--threads", 2, "--device", "cuda", "--memory",
        "--seed", 7, "--max-seconds", 3)  # fmt: skip
    ((args, options),) = asked
    assert args[:2] == (["a", "b"], ["evit"])
    assert options["batch_sizes"] == [4]
    assert options["image_sizes"] == [64, (32, 64)]
    assert options["dtypes"] == ["bfloat16"]
    assert options["compile"] == [False, True, "max-autotune"]
    assert (options["threads"], options["devices"]) == ([2], ["cuda"])
    assert (options["memory"], options["split"], options["seed"]) == (True, False, 7)
    assert (options["pairs"], options["max_seconds"]) == (15, 3)
    run("bench")
    args, options = asked[1]
    assert args[0] == "digits"
    assert options["max_seconds"] is not None


def test_resume_and_overwrite(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "tokenred-out" / "bench" / "results.jsonl"
    assert run("bench", *FEW).exit_code == 0
    first = path.read_bytes()
    refused = run("bench", *FEW)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert run("bench", *FEW, "-n", 4, "--resume").exit_code == 0
    assert path.read_bytes().startswith(first)
    assert len(read_results(path)) == 6
    assert len(pd.read_csv(path.with_suffix(".csv"))) == 6
    assert run("bench", *FEW, "--overwrite").exit_code == 0
    assert len(read_results(path)) == 4


def test_a_dry_run_writes_nothing(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("bench", *FEW, "--image-size", 33, "--image-size", 32, "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("To do: ") == 4
    assert "Not possible: " in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_failed_cell_shows_and_the_rest_is_written(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = running.benchmark

    def fail(models: Any, **options: Any) -> Any:
        if options["batch_size"] == 2:
            raise torch.OutOfMemoryError("no room")
        return real(models, **options)

    monkeypatch.setattr(running, "benchmark", fail)
    result = run("bench", *FEW)
    assert result.exit_code == 1
    assert "Out of memory: digits, topk, batch 2" in result.stdout
    folder = tmp_path / "tokenred-out" / "bench"
    assert sorted(p.name for p in folder.iterdir()) == FILES


def test_the_chart_of_an_earlier_run(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "earlier.jsonl"
    for batch in (1, 8):
        append_result(path, make_row(f"k{batch}", batch_size=batch))
    result = run("bench", "--chart", path)
    assert result.exit_code == 0, result.output
    assert "gtp:P=8" in result.stdout
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert run("bench", "--chart", path).exit_code == 2
    assert run("bench", "--chart", path, "--overwrite").exit_code == 0
    assert run("bench", "--chart", path, "--output", "there").exit_code == 0
    assert (tmp_path / "there" / "break_even.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "nothing"], "unknown strategy 'nothing'"),
        (["--model", "vit_tinny_patch16_224"], "Did you mean"),
        (["-s", "gtp:P=60"], "no cell of the sweep can run"),
        (["--image-size", "a"], "HEIGHTxWIDTH"),
        (["--image-size", "1x2x3"], "HEIGHTxWIDTH"),
        (["--dtype", "int8"], "float32"),
        (["--compile", "fast"], "reduce-overhead"),
        (["-n", "0"], "batch_size"),
        (["--pairs", "1"], "pairs"),
        (["--threads", "0"], "threads"),
        (["--device", "no-such"], "device"),
        (["--resume", "--overwrite"], "give one"),
        (["--chart", "none.jsonl"], "cannot read"),
    ],
)
def test_refused(  # type: ignore[no-untyped-def]
    run, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(running, "benchmark", never)
    result = run("bench", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: ")
