"""What is drawn is the graph."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tokenred.analysis import draw_graph, graph_statistics, in_degree_map
from tokenred.core.errors import ConfigError, InputError
from tokenred.graphs import Graph
from tokenred.graphs.mixed import Mixed
from tokenred.graphs.spatial import Spatial

IMAGE = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(1))


def _graph(edges: list[tuple[int, int]], grid: tuple[int, int] = (3, 4)) -> Graph:
    n = grid[0] * grid[1]
    dense = torch.zeros(1, n, n)
    for i, j in edges:
        dense[0, i, j] = 1
    return Graph.from_dense(dense, grid)


def _title(figure: Figure) -> str:
    return figure.axes[0].get_title()


def test_edges_lead_from_who_chose_to_the_chosen() -> None:
    # On 3×4 patches: 0 at the upper left, 11 at the lower right; 5 is beside 0.
    figure = draw_graph(_graph([(0, 11), (11, 0), (0, 5), (5, 0)]), IMAGE)
    there, back = (arrow.get_path().vertices for arrow in figure.axes[0].patches)
    assert np.allclose(there[[0, 2]], [[0.5, 0.5], [3.5, 2.5]], atol=0.2)
    assert np.allclose(back[[0, 2]], [[3.5, 2.5], [0.5, 0.5]], atol=0.2)
    assert np.abs(there[1] - back[1]).max() > 0.2  # to different sides, so that both are seen
    assert len(there) > 3  # with a head
    assert _title(figure) == "2 edges beyond the grid neighbours"


def test_heavier_edges_are_more_opaque_and_nodes_grow_with_their_in_degree() -> None:
    # 0 chose one, 3 chose three: the weights are 1/√(1·3) and less.
    figure = draw_graph(_graph([(0, 3), (3, 0), (3, 8), (3, 9), (8, 0), (9, 0)]), IMAGE)
    alpha = [arrow.get_edgecolor()[3] for arrow in figure.axes[0].patches]
    assert len(set(np.round(alpha, 6))) > 1
    assert max(alpha) == pytest.approx(0.8)
    (nodes,) = draw_graph(_graph([(0, 3), (1, 3), (3, 0)]), IMAGE).axes[0].collections
    sizes = nodes.get_sizes()
    assert sizes[3] > sizes[0] > sizes[1] == sizes[2]


def test_which_edges() -> None:
    graph = Mixed(M=2)(torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(0)), (3, 4))
    count = int((graph.values[1] != 0).sum())
    assert _title(draw_graph(graph, IMAGE, 1, far_only=False)) == f"{count} edges"
    mine = draw_graph(graph, IMAGE, 1, far_only=False, patches=[4])
    starts = [arrow.get_path().vertices[0].tolist() for arrow in mine.axes[0].patches]
    assert starts == [pytest.approx([0.5, 1.5])] * int((graph.values[1, 4] != 0).sum())
    large = Mixed(M=8)(torch.randn(1, 64, 6, generator=torch.Generator().manual_seed(0)), (8, 8))
    assert "from 3 patches" in _title(draw_graph(large, IMAGE))
    assert "from" not in _title(draw_graph(large, IMAGE, patches=range(64)))


def test_an_undirected_graph_has_no_arrows() -> None:
    graph = Spatial()(torch.zeros(1, 12, 2), (3, 4))
    # Nothing is far in it, so the near edges are drawn.
    figure = draw_graph(graph, IMAGE)
    assert _title(figure) == "29 edges"
    assert len(figure.axes[0].patches[0].get_path().vertices) == 3
    assert _title(draw_graph(graph, IMAGE, patches=[0])) == "3 edges"
    assert _title(draw_graph(graph, IMAGE, far_only=True)) == "0 edges beyond the grid neighbours"


@pytest.mark.parametrize(
    "image",
    [IMAGE, IMAGE.permute(1, 2, 0).numpy(), (IMAGE * 255).byte(), IMAGE[:1]],
    ids=["tensor", "array", "bytes", "grey"],
)
def test_photographs(image: Any) -> None:
    (shown,) = draw_graph(_graph([(0, 11)]), image).axes[0].images
    values = np.asarray(shown.get_array())
    assert values.shape == (24, 32, 3)
    expected = IMAGE.permute(1, 2, 0).numpy()
    expected = expected[..., :1] if len(image) == 1 else expected
    np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), atol=1 / 255)
    assert shown.get_extent() == [0, 4, 3, 0]


def test_in_degrees_alone_and_beside_the_graph() -> None:
    graph = _graph([(0, 3), (1, 3), (3, 0)])
    expected = [1, 0, 0, 2] + [0] * 8
    both = draw_graph(graph, IMAGE, in_degree=True, title="a graph")
    assert both.get_suptitle() == "a graph"
    sources = (graph, graph_statistics(graph), np.array(expected).reshape(3, 4))
    for axes in (both.axes[1], *(in_degree_map(source).axes[0] for source in sources)):
        assert np.asarray(axes.collections[0].get_array()).flatten().tolist() == expected
        assert axes.get_xlabel() == "column (patches)"


def test_refused() -> None:
    graph = _graph([(0, 11)])
    with pytest.raises(InputError, match="expected an image"):
        draw_graph(graph, torch.zeros(24, 32))
    with pytest.raises(ConfigError, match="between 0 and 11, got 12"):
        draw_graph(graph, IMAGE, patches=[12])
    with pytest.raises(ConfigError, match="2 images"):
        draw_graph(Mixed(M=2)(torch.randn(2, 12, 6), (3, 4)), IMAGE, 2)
    with pytest.raises(InputError, match="on a grid"):
        in_degree_map(np.zeros(4))
