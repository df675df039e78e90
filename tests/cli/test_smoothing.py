"""``tokenred oversmoothing`` on the embedded model and data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

FEW = ("--limit", 12, "--batch-size", 6)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_writes_table_csv_and_picture(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("oversmoothing", *FEW, "-s", "gtp", "-s", "evit", "--output", "new/out")
    assert result.exit_code == 0, result.output
    for words in ("digits ViT on digits", "dense", "evit", "12 images", "cosine similarity"):
        assert words in result.stdout
    folder = tmp_path / "new" / "out"
    frame = pd.read_csv(folder / "oversmoothing.csv")
    assert list(dict.fromkeys(frame["strategy"])) == ["dense", "gtp", "evit"]
    assert (folder / "oversmoothing.png").read_bytes().startswith(b"\x89PNG")
    shares = frame.groupby("strategy")["gmacs"].first()
    assert shares["gtp"] / shares["dense"] == pytest.approx(0.75, abs=0.02)


def test_own_schedules(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("oversmoothing", *FEW, "-s", "gtp:P=2", "--share", 1)
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(tmp_path / "tokenred-out" / "oversmoothing" / "oversmoothing.csv")
    assert frame[frame["strategy"] == "gtp:P=2"]["tokens"].min() == 64 - 16


def test_an_old_output_is_refused_before_any_work(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "oversmoothing.csv").write_text("mine")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("tokenred.models.load_model", never)
    result = run("oversmoothing", "-o", tmp_path)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert (tmp_path / "oversmoothing.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "nothing"], "unknown strategy 'nothing'"),
        (["-s", "gtp@0.5"], "a budget of its own"),
        (["--share", "75"], "between 0 and 1"),
        (["--model", "vit_tiny_patch16_224"], "--data"),
        (["--limit", "0"], "limit"),
        (["--data", "nowhere"], "found nothing"),
    ],
)
def test_refused(run, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    result = run("oversmoothing", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: ")
