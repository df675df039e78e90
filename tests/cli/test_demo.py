"""The demo, with a tiny model in DeiT-S's place."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest


def test_demo(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tokenred.cli.demo._MODEL", "vit_tiny_patch16_224")
    monkeypatch.setattr("tokenred.cli.demo._BATCH", 1)
    monkeypatch.setattr("tokenred.cli.demo._PAIRS", 2)
    few = ("--limit", 20, "--pairs", 2)
    folder = tmp_path / "tokenred-out" / "demo"
    folder.mkdir(parents=True)
    (folder / "comparison.csv").write_text("an earlier run")
    result = run("compare", "--demo", *few)
    assert result.exit_code == 0, result.output
    for words in ("What 20 images can tell", "random weights", "gtp:P=8", "196→172→148→124→100"):
        assert words in result.stdout
    assert sorted(p.name for p in folder.iterdir()) == [
        "comparison.csv", "deit_small_speed.csv", "tradeoff.png",
    ]  # fmt: skip
    assert "top1" not in pd.read_csv(folder / "deit_small_speed.csv")
    # Its own folder it may replace; a folder that the user names it may not.
    assert run("compare", "--demo", *few, "--out", folder).exit_code == 2
