"""``tokenred agreement`` and ``tokenred oversmoothing`` on the embedded model and data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Run


def test_agreement(run: Run) -> None:
    few = ("agreement", "--limit", 6, "-s", "gtp", "-s", "topk", "-s", "evit", "-o", "out")
    result = run(*few, "-P", 3)
    assert result.exit_code == 0, result.output
    for words in ("(40 tokens): digits ViT on digits", "by chance", "6 images"):
        assert words in result.stdout
    frame = pd.read_csv("out/agreement.csv")
    assert set(frame["statistic"]) == {"iou", "survival", "scores"}
    first = Path("out/agreement.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    again = run(*few, "--statistic", "survival", "--layer", 7, "--overwrite")
    assert again.exit_code == 0, again.output
    assert Path("out/agreement.png").read_bytes() != first


def test_oversmoothing(run: Run) -> None:
    few = ("oversmoothing", "--limit", 6, "--batch-size", 6)
    result = run(*few, "-s", "gtp", "-s", "evit", "--output", "new/out")
    assert result.exit_code == 0, result.output
    for words in ("digits ViT on digits", "dense", "evit", "6 images", "cosine similarity"):
        assert words in result.stdout
    frame = pd.read_csv("new/out/oversmoothing.csv")
    assert list(dict.fromkeys(frame["strategy"])) == ["dense", "gtp", "evit"]
    assert Path("new/out/oversmoothing.png").read_bytes().startswith(b"\x89PNG")
    shares = frame.groupby("strategy")["gmacs"].first()
    assert shares["gtp"] / shares["dense"] == pytest.approx(0.75, abs=0.02)

    own = run(*few, "-s", "gtp:P=2", "--share", 1)
    assert own.exit_code == 0, own.output
    frame = pd.read_csv("tokenred-out/oversmoothing/oversmoothing.csv")
    assert frame[frame["strategy"] == "gtp:P=2"]["tokens"].min() == 64 - 16
