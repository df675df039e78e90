"""``tokenred report``."""

from __future__ import annotations

from pathlib import Path

import pytest

CSV = (
    "strategy,method,gmacs,top1,model,data,images\ndense,dense,2,80,ViT,x,9\ngtp,gtp,1,79,ViT,x,9\n"
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(CSV)


def test_one_file(run) -> None:  # type: ignore[no-untyped-def]
    result = run("report", "a.csv")
    assert result.exit_code == 0, result.output
    assert "Written: report.html" in result.stdout
    assert "ViT on x" in Path("report.html").read_text()


def test_several_files(run) -> None:  # type: ignore[no-untyped-def]
    Path("b.csv").write_text(CSV.replace("gtp", "tome"))
    result = run("report", "a.csv", "b.csv", "-o", "both.html", "--title", "Two")
    assert result.exit_code == 0, result.output
    text = Path("both.html").read_text()
    assert "<title>Two</title>" in text
    assert "b.csv: Results" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.db"], "cannot read none.db"),
        (["a.csv", "-o", "a.pdf"], ".html"),
        (["a.csv", "-o", "a.html", "--level", "2"], "level"),
        (["a.csv", "-o", "old.html"], "--overwrite"),
    ],
)
def test_refused(run, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    Path("old.html").write_text("mine")
    result = run("report", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert Path("old.html").read_text() == "mine"
