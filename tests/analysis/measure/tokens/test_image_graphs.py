"""One photograph, its graph and its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tokenred as tr
from tokenred.analysis import image_graph
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError, InputError
from tokenred.graphs.mixed import Mixed


def _photograph(side: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, size=(side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_graph_and_pixels(digits: nn.Module) -> None:
    photograph = _photograph(32)
    found = image_graph(tr.wrap(digits, "gtp"), photograph, Mixed(M=5))
    assert found.image.shape == (1, 3, 32, 32)
    # Normalised and back: the photograph itself, which has the model's size already.
    np.testing.assert_allclose(found.pixels, np.asarray(photograph) / 255, atol=1e-6)
    with torch.no_grad():
        embedded = adapt(digits).embed(found.image)
    expected = Mixed(M=5)(embedded.x0, (8, 8))
    assert torch.equal(found.graph.dense(), expected.dense())


def test_any_size_and_mode(digits: nn.Module) -> None:
    grey = _photograph(90).convert("L")
    found = image_graph(digits, grey, "spatial")
    assert found.pixels.shape == (32, 32, 3)
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    assert found.graph.num_nodes == 64


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(InputError, match="PIL image"):
        image_graph(digits, np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="makes a graph"):
        image_graph(digits, _photograph(32), "none")
    with pytest.raises(ConfigError, match="M must be below"):
        image_graph(digits, _photograph(32), Mixed(M=64))
