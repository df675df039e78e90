"""``tokenred compare`` on the embedded model and data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

FEW = ("--limit", 20, "--pairs", 2, "--batch-size", 10)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_writes_table_csv_and_picture(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("compare", *FEW, "-s", "gtp:P=4", "-s", "tome@0.7", "--out", "new/out")
    assert result.exit_code == 0, result.output
    for words in ("digits ViT on digits", "gtp:P=4", "tome@0.7", "20 images", "points wide"):
        assert words in result.stdout
    folder = tmp_path / "new" / "out"
    frame = pd.read_csv(folder / "comparison.csv")
    assert frame["strategy"].tolist() == ["dense", "gtp:P=4", "tome@0.7"]
    assert (folder / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in folder.iterdir()) == ["comparison.csv", "tradeoff.png"]
    assert "comparison.csv" in result.stdout.replace("\n", "")


def test_an_old_output_is_refused_before_any_work(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "tokenred-out" / "comparison.csv"
    old.parent.mkdir()
    old.write_text("mine")
    result = run("compare", "--no-timing", "--limit", 10, "-s", "topk", "--overwrite")
    assert result.exit_code == 0
    old.write_text("mine")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("tokenred.models.load_model", never)
    result = run("compare", "--no-timing", "--limit", 10, "-s", "topk")
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert old.read_text() == "mine"


def test_budgets(run) -> None:  # type: ignore[no-untyped-def]
    result = run("compare", "--no-timing", "--limit", 10, "-s", "evit", "-b", 0.9, "-b", 0.5)
    assert result.exit_code == 0
    assert "evit@0.9" in result.stdout
    assert "evit@0.5" in result.stdout


def test_baselines(run) -> None:  # type: ignore[no-untyped-def]
    result = run(
        "compare", "--no-timing", "--limit", 10, "-s", "tome@0.6", "--baselines", "--channels-last"
    )
    assert result.exit_code == 0, result.output
    for label in ("resolution@0.6", "depth@0.6", "uniform@0.6"):
        assert label in result.stdout


def test_speed_only(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("compare", *FEW, "--random-weights", "-s", "evit")
    assert result.exit_code == 0, result.output
    assert "random weights" in result.stdout
    assert "top-1" not in result.stdout
    assert [p.name for p in (tmp_path / "tokenred-out").iterdir()] == ["comparison.csv"]


def test_a_corrupt_image_is_named(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for label in range(10):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "a.png")
    (tmp_path / "images" / "4" / "torn.png").write_bytes(b"torn")
    result = run("compare", "--no-timing", "--data", tmp_path / "images", "-s", "topk")
    assert result.exit_code == 0, result.output
    assert "10 images" in result.stdout
    assert "Left out: 1 unreadable image: " in result.stdout
    assert "torn.png" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "nothing"], "unknown strategy 'nothing'"),
        (["-s", "gtp:Q=3"], "unknown argument of strategy 'gtp' 'Q'"),
        (["-s", "gtp:P=60"], "gtp:P=60: "),
        (["--data", "."], "image"),
        (["--data", "nowhere"], "found nothing"),
        (["--model", "deit_small_patch16_22", "--data", "digits"], "Did you mean"),
        (["--model", "vit_tiny_patch16_224"], "--data"),
        (["--mean", "0.5,a,b"], "r,g,b"),
        (["--limit", "0"], "limit"),
        (["--batch-size", "0"], "batch_size"),
        (["--pairs", "1"], "pairs"),
        (["--device", "no-such"], "device"),
        (["--demo", "-s", "gtp"], "--demo"),
        (["--random-weights", "--data", "digits"], "random weights"),
        (["--random-weights", "--no-timing"], "nothing to measure"),
    ],
)
def test_refused(run, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    result = run("compare", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: ")
