"""What all figures share."""

from __future__ import annotations

import io

import matplotlib
import pytest
from PIL import Image

from tokenred.analysis.plots.style import MARKERS, new_figure, palette, png


def test_a_figure_in_the_house_style_and_no_traces() -> None:
    before = dict(matplotlib.rcParams)
    with new_figure(3.3, 2.0) as (figure, axes):
        axes.set(xlabel="x (unit)", ylabel="y (unit)")
    assert dict(matplotlib.rcParams) == before
    assert axes.xaxis.label.get_size() == 8
    assert min(label.get_size() for label in axes.get_xticklabels()) >= 7
    opened = Image.open(io.BytesIO(png(figure)))
    assert opened.size == (660, 400)
    assert Image.open(io.BytesIO(png(figure, dpi=100))).size == (330, 200)


def test_colours_and_markers_that_tell_ten_apart() -> None:
    assert len(set(palette(10))) == 10
    assert palette(12)[10:] == palette(2)
    assert len(set(MARKERS)) == 10


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


def test_a_dollar_sign_is_no_formula() -> None:
    with new_figure(2, 2) as (figure, axes):
        axes.plot([0, 1], [0, 1], label="$\\frac$")
        axes.set_title("$\\nothing$")
        axes.set_yticks([0, 1], ["$\\sqrt", "5$"])
        axes.legend()
    assert png(figure).startswith(b"\x89PNG")
