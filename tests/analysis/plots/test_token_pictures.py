"""A panel a block, a row a strategy, and every patch in the colour of its fate."""

from dataclasses import replace

import numpy as np
import pytest

from tokenred.analysis import show_tokens
from tokenred.analysis.plots.token_pictures import Picture, PictureRow, Stage


def stage(layer: int, **changes: object) -> Stage:
    """A 2×3 grid: one patch holds its neighbour, one is lost, one is in a fused token."""
    holder = np.array([[0, 0, 2], [-1, -1, 5]])
    alive = np.array([[True, False, True], [False, False, True]])
    maps: dict[str, object] = {
        "alive": alive,
        "idle": np.zeros_like(alive),
        "holder": holder,
        "pooled": np.array([[False] * 3, [True, False, False]]),
        "edges": np.zeros((0, 2), dtype=np.int64),
    }
    return Stage(layer=layer, tokens=4, **{**maps, **changes})  # type: ignore[arg-type]


@pytest.fixture
def picture() -> Picture:
    pixels = np.full((20, 30, 3), 0.5, dtype=np.float32)
    idle = np.array([[False, False, True], [False] * 3])
    rows = (
        PictureRow("gtp:P=1", (stage(0), stage(4)), 1, 0.9),
        PictureRow("idlevit", (stage(0), stage(4, idle=idle)), 0, 0.5),
    )
    dense = PictureRow("dense", (), 1, 0.95)
    return Picture(pixels, (2, 3), dense, rows, ("cat", "dog"))


def test_panels_and_their_words(picture: Picture) -> None:
    figure = show_tokens(picture, title="a dog")
    assert len(figure.axes) == 6
    heads = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert heads == ["GTP-ViT, P=1 → dog (90%)", "IdleViT → cat (50%)"]
    captions = [axes.get_xlabel().strip() for axes in figure.axes]
    assert captions == [
        "dense: dog (95%)", "block 0, 4 tokens", "block 4, 4 tokens",
        "", "block 0, 4 tokens", "block 4, 3/4 pass",
    ]  # fmt: skip
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == [
        "idles", "owns others: their mean colour", "removed, in a fused token",
        "removed, nothing left",
    ]  # fmt: skip


def test_veils(picture: Picture) -> None:
    picture.pixels[:10, :10] = 1.0  # the owner; its neighbour is grey
    figure = show_tokens(picture)
    _, veil = figure.axes[1].images
    # An owner and its patches have their mean colour.
    assert np.allclose(np.asarray(veil.get_array())[0, :2], (0.75, 0.75, 0.75, 1))
    opacity = np.asarray(veil.get_array())[..., 3]
    assert (opacity > 0).tolist() == [[True, True, False], [True, True, False]]
    assert np.asarray(veil.get_array())[1, 1, :3].tolist() == [1, 1, 1]
    # One outline, around the patch that stands for another.
    (outline,) = figure.axes[1].patches
    assert outline.get_bbox().bounds == pytest.approx((0.12, 0.12, 0.76, 0.76))
    dark = np.asarray(figure.axes[5].images[1].get_array())[0, 2]
    assert dark[:3].tolist() == [0, 0, 0]
    assert dark[3] > 0.5


def test_without_holders_all_that_is_gone_is_white(picture: Picture) -> None:
    figure = show_tokens(picture, holders=False)
    veil = np.asarray(figure.axes[1].images[1].get_array())
    assert (veil[[0, 1, 1], [1, 0, 1], :3] == 1).all()
    assert not figure.axes[1].patches
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["idles", "gone"]


def test_patches_have_their_shape_and_narrow_captions_two_lines(picture: Picture) -> None:
    axes = show_tokens(picture).axes[1]
    assert axes.get_aspect() == pytest.approx(1.0)
    assert axes.images[0].get_extent() == [0, 3, 2, 0]
    flat = show_tokens(replace(picture, pixels=picture.pixels[:10]), width=2.4).axes[1]
    assert flat.get_aspect() == pytest.approx(0.5)
    assert flat.get_xlabel() == "block 0,\n4 tokens"


def test_edges_lead_from_centre_to_centre() -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.float32)
    drawn = stage(0, edges=np.array([[0, 4], [5, 4]]))
    picture = Picture(pixels, (2, 3), PictureRow("dense", (), None, np.nan),
                      (PictureRow("gtp", (drawn,), None, np.nan),), None)  # fmt: skip
    figure = show_tokens(picture, width=3.3)
    segments = [s.tolist() for c in figure.axes[1].collections for s in c.get_segments()]
    assert [[0.5, 0.5], [1.5, 1.5]] in segments
    assert [[2.5, 1.5], [1.5, 1.5]] in segments
    assert figure.legends[0].get_texts()[-1].get_text() == "graph edges of a removed patch"
    assert [t.get_text() for t in figure.axes[0].texts] == ["GTP-ViT"]

    # Of many removed patches three have edges.
    pairs = np.array([[0, patch] for patch in range(1, 6)])
    drawn = stage(0, edges=pairs)
    axes = show_tokens(replace(picture, rows=(PictureRow("gtp", (drawn,), None, np.nan),))).axes[1]
    dots = [tuple(map(float, line.get_xydata()[0])) for line in axes.lines]
    assert dots == [(2.5, 0.5), (1.5, 1.5), (2.5, 1.5)]
    assert len({line.get_color() for line in axes.lines}) == 3


def test_links_join_removed_patches_and_their_owners(picture: Picture) -> None:
    figure = show_tokens(picture, links=True)
    assert len(figure.axes) == 4 * 3
    lines = figure.axes[4].collections[0].get_segments()
    assert [line.tolist() for line in lines] == [[[1.5, 0.5], [0.5, 0.5]]]
