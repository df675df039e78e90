"""``tokenred graph`` on the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_demo(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("graph", "--demo")
    assert result.exit_code == 0, result.output
    for words in ("Mixed(M=8", "digits ViT", "clustering", "block 7: dropped", "Written"):
        assert words in result.stdout
    assert (tmp_path / "tokenred-out" / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_a_photograph(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Image.new("RGB", (50, 40), (90, 20, 200)).save(tmp_path / "photo.png")
    arguments = ("-b", "semantic:M=3", "-p", 5, "-p", 6, "--all-edges", "-s", "topk")
    result = run("graph", "photo.png", *arguments, "-o", "a/b.svg")
    assert result.exit_code == 0, result.output
    assert "Semantic(M=3" in result.stdout
    assert "block 2: dropped" in result.stdout
    assert (tmp_path / "a" / "b.svg").read_text().lstrip().startswith("<?xml")


def test_an_old_output_is_refused_before_any_work(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "g.png").write_text("mine")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("tokenred.models.load_model", never)
    result = run("graph", "--demo", "-o", "g.png")
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "or --demo"),
        (["photo.png", "--demo"], "or --demo"),
        (["nowhere.png"], "nowhere.png"),
        (["torn.png"], "another kind of file"),
        (["--demo", "-b", "mixd"], "Did you mean 'mixed'"),
        (["--demo", "-b", "mixed:M="], "such as 'mixed:M=8'"),
        (["--demo", "-b", "mixed:K=3"], "'K'"),
        (["--demo", "-b", "mixed:M=64"], "M must be below"),
        (["--demo", "-b", "none"], "makes a graph"),
        (["--demo", "-p", "64"], "between 0 and 63"),
        (["--demo", "-o", "graph.txt"], ".png"),
    ],
)
def test_refused(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    result = run("graph", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokenred: ")
