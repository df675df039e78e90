"""``tokenred show`` and ``tokenred graph`` on the embedded digits."""

from pathlib import Path

from PIL import Image

from tests.cli.conftest import Run
from tokenred.data.digits import DigitsSource


def test_a_photograph(run: Run) -> None:
    DigitsSource().image(3).save("seven.png")
    result = run("show", "seven.png", "--model", "digits", "-s", "gtp:P=4", "-s", "evit@0.7",
                 "--layers", "0,7", "--graph", "--width", 3.3,
                 "-o", "tokens.svg", "-o", "tokens.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("dense: 7 (")
    assert lines[1].startswith("gtp:P=4: 7 (")
    assert lines[1].endswith("tokens: 60 after block 0, 32 after block 7")
    assert lines[2].startswith("evit@0.7: ")
    assert lines[3] == "Written: tokens.svg, tokens.png"
    assert "<svg" in Path("tokens.svg").read_text()
    assert Path("tokens.png").read_bytes().startswith(b"\x89PNG")


def test_an_image_of_a_data_set_and_names_of_classes(run: Run) -> None:
    Path("names.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    result = run("show", "--data", "digits", "--index", 3, "--classes", "names.txt", "-s", "topk")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("dense: digit 7 (")
    with Image.open("tokens.png") as image:
        assert image.width == 2100


def test_random_weights_predict_nothing(run: Run) -> None:
    result = run("show", "--data", "digits", "--random-weights", "-s", "topk", "-o", "t.svg")
    assert result.exit_code == 0, result.output
    dense, topk, _ = result.stdout.splitlines()
    assert dense == "dense: random weights"
    assert topk.startswith("topk: random weights; tokens: ")


def test_demo(run: Run) -> None:
    assert run("show", "--demo", "--no-holders", "--layers", "1").exit_code == 0
    assert run("show", "--demo", "--overwrite", "--layers", "1").exit_code == 0


def test_the_graph_of_an_embedded_digit(run: Run) -> None:
    result = run("graph", "--demo")
    assert result.exit_code == 0, result.output
    for words in ("Mixed(M=8, reference=False), digits", "clustering", "Written"):
        assert words in result.stdout
    assert Path("tokenred-out/graph.png").read_bytes().startswith(b"\x89PNG")


def test_the_graph_of_a_photograph(run: Run) -> None:
    Image.new("RGB", (50, 40), (90, 20, 200)).save("photo.png")
    result = run("graph", "photo.png", "--model", "digits", "-b", "semantic:M=3", "-p", 5, "-p", 6,
                 "--all-edges", "-o", "a/b.svg")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Semantic(M=3" in result.stdout
    assert Path("a/b.svg").read_text().lstrip().startswith("<?xml")
