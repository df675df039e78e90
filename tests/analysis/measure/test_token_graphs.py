"""Statistics of token graphs, over images and of one graph; one photograph and its graph."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils.data import DataLoader

import tokenred as tr
from tokenred.analysis import GraphStatistics, graph_statistics, image_graph
from tokenred.analysis.measure.graph_measures import GRAPH_STATISTICS, adjacency, describe
from tokenred.analysis.measure.inputs import open_for
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError, InputError
from tokenred.graphs import Graph
from tokenred.graphs.mixed import Mixed
from tokenred.graphs.semantic import Semantic

QUICK: dict[str, Any] = {"limit": 12, "batch_size": 5, "progress": False}


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> GraphStatistics:
    return graph_statistics(digits, "digits", Semantic(M=3), name="digits ViT", **QUICK)


def test_over_images(result: GraphStatistics, digits: nn.Module) -> None:
    loader = tr.data.make_loader(open_for(digits, "digits"), 12, limit=12)
    with torch.no_grad():
        embedded = adapt(digits).embed(next(iter(loader))[0])
    graph = Semantic(M=3)(embedded.x0, embedded.grid)
    single = [describe(adjacency(graph, i), (8, 8)) for i in range(12)]
    means = dict(zip(result.frame["statistic"], result.frame["mean"], strict=True))
    assert list(means) == list(GRAPH_STATISTICS)
    for name, mean in means.items():
        assert mean == pytest.approx(np.mean([values[name] for values in single])), name
    assert (result.frame["images"] == 12).all()
    expected = graph.dense(normalized=False).sum(dim=1).mean(dim=0).reshape(8, 8)
    np.testing.assert_allclose(result.in_degree, expected.numpy(), atol=1e-6)


def test_one_graph_for_all_images(digits: nn.Module) -> None:
    found = graph_statistics(digits, "digits", "spatial", **QUICK)
    assert (found.frame["images"][found.frame["statistic"] != "far_length"] == 12).all()
    assert found.in_degree[0].tolist() == [3, 5, 5, 5, 5, 5, 5, 3]


def test_of_a_graph() -> None:
    n = 5
    complete = Graph.from_dense(1 - torch.eye(n)[None], (1, n))
    found = graph_statistics(complete)
    means = found.frame.set_index("statistic")["mean"]
    assert means["spectral_gap"] == pytest.approx(n / (n - 1))
    assert (means["clustering"], means["out_degree"]) == pytest.approx((1, n - 1))
    assert found.frame["low"].isna().all()
    assert "1 image." in str(found)
    assert "interval" not in str(found)
    batch = Mixed(M=2)(torch.randn(4, 12, 5), (3, 4))
    assert (graph_statistics(batch).frame["images"] == 4).all()


def test_printed(result: GraphStatistics) -> None:
    text = str(result)
    for words in (
        "Semantic(M=3",
        "digits ViT on digits",
        "spectral gap",
        "95% interval",
        "12 images",
    ):
        assert words in text
    assert result.plot().axes


def test_refused(digits: nn.Module) -> None:
    graph = Mixed(M=2)(torch.randn(1, 12, 5), (3, 4))
    for arguments, options, said in (
        ((graph, "digits"), {}, "a graph and data"),
        ((digits,), {}, "expected data"),
        ((digits, "digits", "none"), {}, "makes a graph"),
        ((digits, "digits", Mixed(M=64)), {}, "M must be below"),
        ((graph,), {"level": 2}, "level"),
    ):
        with pytest.raises(ConfigError, match=said):
            graph_statistics(*arguments, **QUICK | options)
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, dynamic_img_size=True
    ).eval()
    sizes: DataLoader[Any] = DataLoader([(torch.randn(3, side, side), 0) for side in (32, 48)])
    with pytest.raises(InputError, match="one size"):
        graph_statistics(model, sizes, Mixed(M=2), progress=False)


def test_a_photograph(digits: nn.Module) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
    photograph = Image.fromarray(pixels)
    large = photograph.resize((90, 90)).convert("L")
    assert image_graph(digits, large, "spatial").pixels.shape == (32, 32, 3)
    found = image_graph(tr.wrap(digits, "gtp"), photograph, Mixed(M=5))
    # Normalised and back: the photograph itself, which has the model's size already.
    np.testing.assert_allclose(found.pixels, pixels / 255, atol=1e-6)
    with torch.no_grad():
        embedded = adapt(digits).embed(found.image)
    assert torch.equal(found.graph.dense(), Mixed(M=5)(embedded.x0, (8, 8)).dense())
    with pytest.raises(InputError, match="PIL image"):
        image_graph(digits, pixels)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="makes a graph"):
        image_graph(digits, photograph, "none")
    with pytest.raises(ConfigError, match="M must be below"):
        image_graph(digits, photograph, Mixed(M=64))
