"""What all figures share, and their files."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tokenred.analysis import save_figure
from tokenred.analysis.plots.canvas import add_note, lab, new_grid, palette
from tokenred.core.errors import ConfigError, DataError, OutputExistsError


def make() -> Figure:
    with new_grid(3, 2, columns=2) as (figure, grid):
        grid[0, 0].plot([1, 2], label="$\\frac$")  # a dollar sign is no formula
        grid[0, 0].legend()
        grid[0, 1].set(title="accuracy", xlabel="x")
        add_note(figure, "small " * 30)
    return figure


def test_the_style_leaves_no_traces() -> None:
    before = dict(matplotlib.rcParams)
    figure = make()
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()  # type: ignore[attr-defined]
    assert figure.axes[1].xaxis.label.get_size() == 8
    assert "\n" in figure.get_supxlabel()
    assert list(figure.get_size_inches()) == [3, 2]


# How a reader sees linear RGB (Machado et al., 2009), and how far apart colours must be.
SEEN = {
    "trichromat": (np.eye(3), 35),
    "deuteranope": (
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]], 17,
    ),
    "protanope": ([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]], 17),
}  # fmt: skip


@pytest.mark.parametrize("reader", SEEN)
def test_no_two_colours_look_alike(reader: str) -> None:
    sight, least = SEEN[reader]
    seen = lab([*palette(10), (0, 0, 0)], sight)  # black is the dense model's
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
    assert apart[np.triu_indices(len(seen), 1)].min() > least


def test_pdf_and_svg_keep_text_and_no_date(tmp_path: Path) -> None:
    first, second = save_figure(make(), tmp_path / "a.PDF", tmp_path / "a.svg")
    pdf = first.read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    svg = second.read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "dc:date" not in svg
    [again] = save_figure(make(), tmp_path / "b.svg")
    assert again.read_text() == svg


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    figure = make()
    [path] = save_figure(figure, tmp_path / "a.png", dpi=50)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="overwrite"):
        save_figure(figure, tmp_path / "a.pdf", path)
    assert path.read_bytes() == before
    save_figure(figure, path, overwrite=True, dpi=100)
    with Image.open(path) as image:
        assert image.size == (300, 200)
    with pytest.raises(ConfigError, match=r"\.png, \.pdf, \.svg"):
        save_figure(figure, tmp_path / "a.jpg")
    with pytest.raises(DataError, match="folder"):
        save_figure(figure, tmp_path / "no" / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_what_is_no_figure_or_no_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"save_figure\(figure, path\), got 'a.pdf' as the fig"):
        save_figure("a.pdf", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected the path of a file, got None"):
        save_figure(Figure(), None)  # type: ignore[arg-type]
