"""What the maps of a stage say of a patch."""

from __future__ import annotations

import math

import numpy as np

from tokenred.analysis.picture_data import Picture, PictureRow, Stage


def test_kinds_of_patches() -> None:
    stage = Stage(
        layer=0,
        tokens=2,
        alive=np.array([[True, False], [False, False]]),
        idle=np.zeros((2, 2), dtype=bool),
        holder=np.array([[0, 0], [-1, -1]]),
        pooled=np.array([[False, False], [True, False]]),
        edges=np.zeros((0, 2), dtype=np.int64),
    )
    assert stage.held.tolist() == [[False, True], [False, False]]
    assert stage.lost.tolist() == [[False, False], [False, True]]
    assert stage.gone.tolist() == [[False, True], [True, True]]


def test_what_a_row_says() -> None:
    pixels = np.zeros((2, 2, 3), dtype=np.float32)
    sure, unsure = PictureRow("a", (), 1, 0.924), PictureRow("b", (), 2, 0.004)
    silent = PictureRow("c", (), None, math.nan)
    picture = Picture(pixels, (1, 1), 1, sure, (unsure, silent), ("cat", "dog"))
    assert [picture.said(row) for row in (sure, unsure, silent)] == [
        "dog (92%)", "class 2 (<1%)", "",
    ]  # fmt: skip
