"""``tokenred show`` on the embedded digits."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tokenred.data.digits import DigitsSource


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_photograph(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    DigitsSource().image(3).save("seven.png")
    result = run("show", "seven.png", "-s", "gtp:P=4", "-s", "evit@0.7", "--layers", "0,7",
                 "--graph", "--width", 3.3, "-o", "tokens.svg")  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("dense: 7 (")
    assert lines[1].startswith("gtp:P=4: 7 (")
    assert lines[1].endswith("tokens: 60 after block 0, 32 after block 7")
    assert lines[2].startswith("evit@0.7: ")
    assert lines[3] == "Written: tokens.svg"
    assert "<svg" in (tmp_path / "tokens.svg").read_text()


def test_an_image_of_a_data_set_and_names_of_classes(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Path("names.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    result = run("show", "--data", "digits", "--index", 3, "--classes", "names.txt", "-s", "topk")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("dense: digit 7 (")
    with Image.open(tmp_path / "tokens.png") as image:
        assert image.width == 2100


def test_demo(run) -> None:  # type: ignore[no-untyped-def]
    assert run("show", "--demo", "--no-holders").exit_code == 0
    again = run("show", "--demo")
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert run("show", "--demo", "--overwrite", "--layers", "1").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a photograph"),
        (["a.png", "--data", "digits"], "expected a photograph"),
        (["--demo", "--data", "digits"], "--demo"),
        (["none.png"], "photograph at none.png"),
        (["torn.png"], "photograph at torn.png"),
        (["--demo", "-o", "a.jpg"], ".png, .pdf, .svg"),
        (["--demo", "--layers", "1;2"], "--layers"),
        (["--demo", "--layers", "9"], "blocks from 0 to 7"),
        (["--demo", "-s", "nothing"], "unknown strategy"),
        (["--data", "digits", "--index", "360"], "--index from 0 to 359"),
        (["--demo", "--classes", "none.txt"], "names of the classes"),
    ],
)
def test_refused(run, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    Path("torn.png").write_bytes(b"torn")
    result = run("show", *arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert message in line
    assert not list(Path().glob("tokens*"))
