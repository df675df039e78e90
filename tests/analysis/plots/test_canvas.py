"""Figures of several axes and their files."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image

from tokenred.analysis.plots.canvas import add_note, check_figure_path, new_grid, save_figure
from tokenred.core.errors import ConfigError, DataError, OutputExistsError


def make() -> Figure:
    with new_grid(3, 2, 1, 2) as (figure, grid):
        assert grid.shape == (1, 2)
        grid[0, 0].plot([1, 2])
        grid[0, 1].set_title("accuracy")
        add_note(figure, "small " * 30)
    return figure


@pytest.fixture
def figure() -> Figure:
    return make()


def test_grid_and_note(figure: Figure) -> None:
    assert len(figure.axes) == 2
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


def test_a_failed_write_leaves_nothing(
    figure: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left"):
        save_figure(figure, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("a.jpg", ConfigError, r"\.png, \.pdf, \.svg"), ("no/a.png", DataError, "folder")],
)
def test_bad_paths(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_figure_path(tmp_path / name)
