"""``tokenred compare`` on the embedded model and data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tokenred.cli import comparing

FEW = ("--limit", 10, "--batch-size", 10)


def test_writes_table_csv_and_picture(run: Run) -> None:
    words = ("compare", *FEW, "--pairs", 2, "-s", "gtp:P=4", "-s", "tome@0.7", "--out", "new/out")
    result = run(*words)
    assert result.exit_code == 0, result.output
    for told in ("digits ViT on digits", "gtp:P=4", "tome@0.7", "10 images", "points wide"):
        assert told in result.stdout
    folder = Path("new/out")
    assert pd.read_csv(folder / "comparison.csv")["strategy"].tolist() == [
        "dense", "gtp:P=4", "tome@0.7",
    ]  # fmt: skip
    assert (folder / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.csv", "tradeoff.png"]
    assert "Written: new/out/comparison.csv, new/out/tradeoff.png" in result.stdout
    assert run(*words, "--overwrite").exit_code == 0


def test_budgets_and_baselines(run: Run) -> None:
    result = run("compare", *FEW, "--no-timing", "-s", "evit", "-b", 0.9, "-b", 0.6, "--baselines",
                 "--channels-last")  # fmt: skip
    assert result.exit_code == 0, result.output
    for label in ("evit@0.9", "evit@0.6", "resolution@0.6", "depth@0.6", "uniform@0.6"):
        assert label in result.stdout


def test_speed_only(run: Run) -> None:
    result = run("compare", "--pairs", 2, "--random-weights", "-s", "evit", "--batch-size", 4)
    assert result.exit_code == 0, result.output
    assert "random weights" in result.stdout
    assert "top-1" not in result.stdout
    assert [path.name for path in Path("tokenred-out").iterdir()] == ["comparison.csv"]


def test_a_corrupt_image_is_named(run: Run) -> None:
    for label in range(10):
        folder = Path("images", str(label))
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "a.png")
    Path("images/4/torn.png").write_bytes(b"torn")
    result = run("compare", "--no-timing", "--data", "images", "-s", "topk")
    assert result.exit_code == 0, result.output
    assert "10 images" in result.stdout
    assert "Left out: 1 unreadable image: " in result.stdout
    assert "torn.png" in result.stdout


def test_demo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_DEIT", "vit_tiny_patch16_224")  # a tiny model for DeiT-S
    few = ("compare", "--demo", "--limit", 10, "--pairs", 2)
    folder = Path("tokenred-out/demo")
    folder.mkdir(parents=True)
    (folder / "comparison.csv").write_text("an earlier run")
    result = run(*few)
    assert result.exit_code == 0, result.output
    for words in ("What 10 images can tell", "random weights", "gtp:P=8", "196→172→148→124→100"):
        assert words in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.csv", "deit_small_speed.csv", "tradeoff.png",
    ]  # fmt: skip
    assert "top1" not in pd.read_csv(folder / "deit_small_speed.csv")
    # Its own folder it may replace; a folder that the user names it may not.
    assert run(*few, "--out", folder).exit_code == 2
