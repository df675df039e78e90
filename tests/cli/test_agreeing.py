"""``tokenred agreement`` on the embedded model and data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

FEW = ("--limit", 8, "-s", "gtp", "-s", "topk", "-s", "evit")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_writes_table_csv_and_picture(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("agreement", *FEW, "-P", 3, "-o", "out")
    assert result.exit_code == 0, result.output
    for words in ("(40 tokens): digits ViT on digits", "by chance", "8 images"):
        assert words in result.stdout
    frame = pd.read_csv(tmp_path / "out" / "agreement.csv")
    assert set(frame["statistic"]) == {"iou", "survival", "scores"}
    picture = tmp_path / "out" / "agreement.png"
    first = picture.read_bytes()
    assert first.startswith(b"\x89PNG")
    again = run("agreement", *FEW, "-o", "out", "--statistic", "survival", "--layer", 7,
                "--overwrite")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert picture.read_bytes() != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "gtp"], "two strategies"),
        (["--statistic", "all"], "--statistic"),
        (["--layer", "8"], "--layer from 0 to 7"),
        (["-P", "9"], "remove"),
        (["--model", "vit_tiny_patch16_224"], "--data"),
    ],
)
def test_refused(run, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    result = run("agreement", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: ")
