"""What all figures share, and their files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tokenred.analysis import save_figure
from tokenred.analysis.plots.canvas import add_note, check_figure_path, new_grid, palette
from tokenred.core.errors import ConfigError, DataError, OutputExistsError


def make() -> Figure:
    with new_grid(3, 2, 1, 2) as (figure, grid):
        grid[0, 0].plot([1, 2], label="$\\frac$")  # a dollar sign is no formula
        grid[0, 0].legend()
        grid[0, 1].set(title="accuracy", xlabel="x")
        add_note(figure, "small " * 30)
    return figure


@pytest.fixture
def figure() -> Figure:
    return make()


def test_the_house_style_leaves_no_traces() -> None:
    before = dict(matplotlib.rcParams)
    figure = make()
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()  # type: ignore[attr-defined]
    assert figure.axes[1].xaxis.label.get_size() == 8
    assert "\n" in figure.get_supxlabel()
    assert list(figure.get_size_inches()) == [3, 2]


def test_png(figure: Figure, tmp_path: Path) -> None:
    path = save_figure(figure, tmp_path / "a.png", dpi=100)
    with Image.open(path) as image:
        assert image.size == (300, 200)


def test_pdf_and_svg_keep_text_and_no_date(figure: Figure, tmp_path: Path) -> None:
    pdf = save_figure(figure, tmp_path / "a.PDF").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    svg = save_figure(make(), tmp_path / "a.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "dc:date" not in svg
    assert save_figure(make(), tmp_path / "b.svg").read_text() == svg


def test_nothing_is_overwritten_unasked(figure: Figure, tmp_path: Path) -> None:
    path = save_figure(figure, tmp_path / "a.png", dpi=50)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="overwrite"):
        save_figure(figure, path)
    assert path.read_bytes() == before
    save_figure(figure, path, overwrite=True, dpi=60)
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("a.jpg", ConfigError, r"\.png, \.pdf, \.svg"), ("no/a.png", DataError, "folder")],
)
def test_bad_paths(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_figure_path(tmp_path / name)


def _seen(colour: tuple[float, float, float], kind: str) -> tuple[float, ...]:
    """As somebody without one kind of cones sees it (Viénot et al. 1999), in linear RGB."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    long = 17.8824 * r + 43.5161 * g + 4.11935 * b
    mid = 3.45565 * r + 27.1554 * g + 3.86714 * b
    short = 0.0299566 * r + 0.184309 * g + 1.46709 * b
    if kind == "protan":
        long = 2.02344 * mid - 2.52581 * short
    else:
        mid = 0.494207 * long + 1.24827 * short
    return (
        0.0809444479 * long - 0.130504409 * mid + 0.116721066 * short,
        -0.0102485335 * long + 0.0540193266 * mid - 0.113614708 * short,
        -0.000365296938 * long - 0.00412161469 * mid + 0.693511405 * short,
    )


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_the_first_five_are_told_apart_by_colour_blind_readers(kind: str) -> None:
    colours = [_seen(colour, kind) for colour in palette(5)]
    distances = [
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for at, one in enumerate(colours) for other in colours[:at]
    ]  # fmt: skip
    assert min(distances) > 0.05


def test_importing_the_analysis_draws_nothing() -> None:
    program = (
        "import sys, tokenred.analysis; from tokenred.analysis import tradeoff, report;"
        "print([m for m in ('seaborn', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr
