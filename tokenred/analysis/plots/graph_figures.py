"""The token graph over the photograph, and the patches that many tokens choose."""

from collections.abc import Collection
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tokenred.analysis.measure.graph_measures import adjacency
from tokenred.analysis.measure.graph_measures import in_degree as in_degrees
from tokenred.analysis.plots.canvas import new_figure, new_grid, palette
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.values import Inches
from tokenred.graphs import Graph

Floats = NDArray[np.float64]
_WIDTH = 3.5  # inches, a column of most papers
_OPACITY = 0.8  # of the heaviest edge, if there are few edges
_MANY = 150  # edges, of which only those of a few patches are drawn
_FADED = 0.4  # of the photograph, so that edges are visible on dark ones too


def draw_graph(
    graph: Graph,
    image: Tensor | ArrayLike,
    i: int = 0,
    *,
    far_only: bool | None = None,
    patches: Collection[int] | None = None,
    in_degree: bool = False,
    title: str | None = None,
    width: Inches | None = None,
    height: Inches = 3.3,
) -> Figure:
    """Draw a token graph over the photograph that it was built from.

    Nodes are at the centres of the patches, larger if more tokens chose them. Edges point from a
    token to those it chose (features travel in the opposite direction); opacity shows the weight.

    Args:
        graph: the result of a graph builder.
        image: the pixels that the model saw: a tensor ``(3, H, W)`` or an array ``(H, W, 3)``,
            in 0..1, or integers in 0..255.
        i: which image of the graph's batch.
        far_only: hide edges between grid neighbours, which say little and hide much; None to do so
            only if there are other edges.
        patches: only the edges that these positions chose; None for all, or for three positions
            if there are over 150 edges (pass ``range(graph.num_nodes)`` for all of them).
        in_degree: draw an `in_degree_map` beside it.
        title: title of the figure; None for none.
        width, height: in inches; by default one column of most papers, two with both.

    Raises:
        InputError: if ``image`` is not an image.
        ConfigError: if a position is outside the grid, or the graph does not have the image.
    """
    panels = 1 + in_degree
    with new_grid(width or panels * _WIDTH, height, columns=panels) as (figure, grid):
        _draw_edges(grid[0, 0], graph, image, i, far_only, patches)
        if in_degree:
            _draw_degrees(grid[0, 1], _degrees(graph, i), "how often each patch is chosen")
        if title:
            figure.suptitle(title)
    return figure


def in_degree_map(
    source: Any, i: int = 0, *, title: str = "", width: Inches = _WIDTH, height: Inches = 3.0
) -> Figure:
    """How many tokens chose each patch.

    Args:
        source: a `GraphStatistics` (mean over its images), a graph (its image ``i``), or an array
            ``(gh, gw)``.
        i: which image of a graph's batch.
        title: above.
        width, height: in inches.

    Raises:
        InputError: for an array of another shape.
        ConfigError: if the graph does not have the image.
    """
    with new_figure(width, height) as (figure, axes):
        _draw_degrees(axes, _degrees(source, i), title)
    return figure


def _pixels(image: Tensor | ArrayLike) -> Floats:
    if isinstance(image, Tensor):
        image = image.detach().cpu().to(torch.float64).movedim(0, -1).numpy()
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise InputError(
            "expected an image as a tensor (3, H, W) or an array (H, W, 3), got shape "
            f"{array.shape}."
        )
    values = array.astype(np.float64)
    values = values / 255 if values.max() > 1.5 else values
    return np.broadcast_to(values.clip(0, 1), (*array.shape[:2], 3))


def _edges(
    graph: Graph, i: int, far_only: bool | None, patches: Collection[int] | None
) -> tuple[Floats, str]:
    """Rows of (from, to, weight), and a description of them."""
    nodes = graph.num_nodes
    if wrong := [p for p in patches or () if not 0 <= p < nodes]:
        raise ConfigError(f"expected patches between 0 and {nodes - 1}, got {wrong[0]}.")
    every = graph.to_networkx(i).edges(data="weight")
    edges = np.array([edge for edge in every if edge[0] != edge[1]], dtype=np.float64)
    edges = edges.reshape(-1, 3)
    few = ""
    if patches is None and len(edges) > _MANY:
        gh, gw = graph.grid
        patches = [gh * k // 4 * gw + gw * k // 4 for k in (1, 2, 3)]
        few = f" from {len(patches)} patches"
    if patches is not None:
        mine = np.isin(edges[:, 0], list(patches))
        if not graph.directed:
            mine |= np.isin(edges[:, 1], list(patches))
        edges = edges[mine]
    (r0, c0), (r1, c1) = (np.divmod(edges[:, end], graph.grid[1]) for end in (0, 1))
    far = np.maximum(np.abs(r0 - r1), np.abs(c0 - c1)) > 1
    hide = far.any() if far_only is None else far_only
    edges = edges[far] if hide else edges
    count = "1 edge" if len(edges) == 1 else f"{len(edges)} edges"
    return edges, f"{count}{few} beyond the grid neighbours" if hide else f"{count}{few}"


def _degrees(source: Any, i: int) -> Floats:
    if isinstance(source, Graph):
        return in_degrees(adjacency(source, i)).reshape(source.grid)
    degrees = np.asarray(getattr(source, "in_degree", source), dtype=np.float64)
    if degrees.ndim != 2 or not degrees.size:
        raise InputError(f"expected in-degrees on a grid (gh, gw), got shape {degrees.shape}.")
    return degrees


def _draw_edges(
    axes: Axes,
    graph: Graph,
    image: Tensor | ArrayLike,
    i: int,
    far_only: bool | None,
    patches: Collection[int] | None,
) -> None:
    pixels, (edges, title) = _pixels(image), _edges(graph, i, far_only, patches)
    blue, orange = palette(2)
    gh, gw = graph.grid
    rows, columns = np.divmod(np.arange(graph.num_nodes), gw)
    x, y = columns + 0.5, rows + 0.5
    # Each patch is one unit wide; the photograph is stretched to the grid.
    axes.imshow(
        pixels, extent=(0, gw, gh, 0), alpha=_FADED, interpolation="nearest",
        aspect=(pixels.shape[0] / gh) / (pixels.shape[1] / gw),
    )  # fmt: skip
    relative = edges[:, 2] / (edges[:, 2].max(initial=0) or 1)
    opacity = min(_OPACITY, 8 / max(1, len(edges)) ** 0.5) * relative.clip(0.1, 1)
    for (start, end), alpha in zip(edges[:, :2].astype(int), opacity, strict=True):
        axes.add_patch(
            FancyArrowPatch(
                (x[start], y[start]), (x[end], y[end]), color=(*blue, alpha), linewidth=0.7,
                arrowstyle="-|>" if graph.directed else "-", mutation_scale=4, shrinkA=0, shrinkB=2,
                connectionstyle="arc3,rad=0.2",  # both directions are seen
            )
        )  # fmt: skip
    degrees = _degrees(graph, i).flatten()
    axes.scatter(
        x, y, s=3 + 25 * (degrees / max(1, degrees.max())) ** 2, color=orange,
        edgecolor="white", linewidth=0.3, zorder=3,
    )  # fmt: skip
    axes.set(xlim=(0, gw), ylim=(gh, 0), title=title)
    axes.set_axis_off()


def _draw_degrees(axes: Axes, degrees: Floats, title: str) -> None:
    sns.heatmap(
        degrees, ax=axes, cmap="viridis", square=True, vmin=0,
        cbar_kws={"label": "in-degree (tokens that chose the patch)", "shrink": 0.85,
                  "ticks": MaxNLocator(integer=True)},
    )  # fmt: skip
    axes.set(xlabel="column (patches)", ylabel="row (patches)", title=title)
    axes.tick_params(length=0, labelrotation=0)
