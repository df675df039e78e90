"""Token pictures (Fig. 4 of the GTP paper): which tokens remain, and which patches they own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from tokenred.analysis.plots.canvas import add_legend, new_grid, palette
from tokenred.analysis.plots.looks import read_name
from tokenred.core.values import Inches

# Covers of patches, with their opacity.
_LOST, _POOLED, _IDLING = (1.0, 1.0, 1.0, 0.93), (0.5, 0.5, 0.5, 0.75), (0.0, 0.0, 0.0, 0.65)
_DIAGONALS = ((0.3, 0.3, 0.7, 0.7), (0.3, 0.7, 0.7, 0.3))
_HATCHES = ((0, 1, 1, 0), (0, 0.5, 0.5, 0), (0.5, 1, 1, 0.5))
_SMALL = 6.5  # points
_LINE = 0.13  # inches, height of a text line
_TRACED = 3  # removed patches whose edges are drawn in a panel
_NARROW = 1.1  # inches: panels whose captions take two lines


@dataclass(frozen=True, eq=False)
class Stage:
    """An image's patches after one block; maps are ``(gh, gw)``.

    Attributes:
        layer: the block, from 0.
        tokens: remaining image tokens.
        alive: whether the token of this patch remains.
        idle: whether it skipped this block and waits.
        holder: the patch whose token owns this one; the patch itself if it is alive; −1 if there is
            no such patch.
        pooled: whether it is owned by a token of no single patch, such as EViT's fused token.
        edges: ``(k, 2)`` pairs of a remaining and a removed patch that are neighbours in the token
            graph; empty unless requested.
    """

    layer: int
    tokens: int
    alive: NDArray[np.bool_]
    idle: NDArray[np.bool_]
    holder: NDArray[np.int64]
    pooled: NDArray[np.bool_]
    edges: NDArray[np.int64]

    @property
    def gone(self) -> NDArray[np.bool_]:
        """Whether the token of this patch has been removed."""
        return ~self.alive

    @property
    def held(self) -> NDArray[np.bool_]:
        """Whether the patch is removed and the token of another patch owns it."""
        return self.gone & (self.holder >= 0)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Whether nothing of the patch is left in any token."""
        return self.gone & (self.holder < 0) & ~self.pooled


@dataclass(frozen=True, eq=False)
class PictureRow:
    """One strategy on the image.

    Attributes:
        label: the strategy, as it was written.
        stages: one for each requested block.
        prediction: the class, or None for a model that gives no logits ``(b, classes)``.
        probability: of that class, NaN likewise.
    """

    label: str
    stages: tuple[Stage, ...]
    prediction: int | None
    probability: float


@dataclass(frozen=True, eq=False)
class Picture:
    """An image under several strategies.

    Attributes:
        pixels: ``(H, W, 3)`` from 0 to 1, as the model sees them.
        grid: patches down and across.
        dense: the row of the unreduced model, without stages.
        rows: one per strategy.
        classes: names of the classes, or None.
    """

    pixels: NDArray[np.float32]
    grid: tuple[int, int]
    dense: PictureRow
    rows: tuple[PictureRow, ...]
    classes: tuple[str, ...] | None

    def said(self, row: PictureRow) -> str:
        """The prediction and its probability, "7 (92%)"; empty if the model has no classes."""
        if row.prediction is None:
            return ""
        names = self.classes or ()
        known = row.prediction < len(names)
        name = names[row.prediction] if known else f"class {row.prediction}"
        share = "<1%" if row.probability < 0.01 else f"{row.probability:.0%}"
        return f"{name} ({share})"


def show_tokens(
    picture: Picture, *, holders: bool = True, links: bool = False, title: str | None = None,
    width: Inches = 7.0,
) -> Figure:  # fmt: skip
    """The photograph and what remains of it after some blocks: one row per strategy.

    A patch whose token remains is shown unchanged, unless it owns others: then it is outlined, and
    it and they have their mean colour. A removed patch is grey if a token of no single patch owns
    it, and white and crossed if nothing of it is left. An idle patch is dark and hatched. If the
    picture has edges, coloured lines show those of the token graph from three removed patches to
    their neighbours that remain.

    Args:
        picture: the result of `tokenred.analysis.trace_picture`.
        holders: show the owner of each removed patch; otherwise all removed patches are white and
            crossed.
        links: beneath each row, the photographs again, with a line from each removed patch to its
            owner.
        title: title of the figure; None for none.
        width: in inches; the height is derived from it.
    """
    columns = 1 + max(len(row.stages) for row in picture.rows)
    # Each strategy, and again if links are shown and there are any.
    rows = [
        (row, linked) for row in picture.rows for linked in (False, True)
        if not linked or (links and any(stage.held.any() for stage in row.stages))
    ]  # fmt: skip
    high, wide = picture.pixels.shape[:2]
    panel = width / columns - 0.04
    lines = 2 if panel < _NARROW else 1
    height = len(rows) * (panel * high / wide + (lines + 1.3) * _LINE + 0.05)
    height += 0.1 + 0.2 * bool(title)
    with new_grid(width, height, rows=len(rows), columns=columns) as (figure, grid):
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        for axes in grid.flat:
            axes.set_axis_off()
        for at, (row, linked) in enumerate(rows):
            for axes, stage in zip(grid[at, 1:], row.stages if linked else (), strict=False):
                _photograph(axes, picture)
                _draw_links(axes, stage)
            if linked:
                continue
            _photograph(grid[at, 0], picture)
            _head(grid[at, 0], read_name(row.label), picture.said(row))
            said = "" if at else picture.said(picture.dense)
            _caption(grid[at, 0], "dense:" if said else "", said, lines, panel)
            for axes, stage in zip(grid[at, 1:], row.stages, strict=False):
                _photograph(axes, picture)
                _cover(axes, picture, stage, holders)
                idle = int(stage.idle.sum())
                passing = f"{stage.tokens - idle}/{stage.tokens} pass"
                count = passing if idle else f"{stage.tokens} tokens"
                _caption(axes, f"block {stage.layer},", count, lines, panel)
        if title:
            figure.suptitle(title)
        if legend := _legend(picture, holders):
            look: Any = {"handlelength": 1.1, "handleheight": 1.1, "fontsize": _SMALL}
            add_legend(figure, legend, handler_map={_Swatch: _SwatchHandler()}, **look)
    return figure


def _photograph(axes: Axes, picture: Picture) -> None:
    gh, gw = picture.grid
    high, wide = picture.pixels.shape[:2]
    axes.set_axis_on()
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=0.4, color="0.6")
    # One unit per patch, with the aspect ratio of the patches.
    axes.imshow(
        picture.pixels, extent=(0, gw, gh, 0), interpolation="nearest",
        aspect=(high / gh) / (wide / gw),
    )  # fmt: skip


def _head(axes: Axes, label: str, said: str) -> None:
    """The row's name, over as many panels as it needs."""
    axes.set_title(" ", fontsize=_SMALL + 0.5, pad=2)
    words = axes.annotate(
        f"{label} → {said}" if said else label, (0, 1), xycoords="axes fraction",
        xytext=(0, 2.5), textcoords="offset points", fontsize=_SMALL + 0.5, fontweight="bold",
        va="bottom", annotation_clip=False,
    )  # fmt: skip
    words.set_in_layout(False)


def _caption(axes: Axes, first: str, second: str, lines: int, panel: float) -> None:
    letters = max(8, int(panel / 0.055))
    parts = [first, second] if lines > 1 else [" ".join((first, second))]
    shown = [part if len(part) <= letters else f"{part[: letters - 1]}…" for part in parts]
    axes.set_xlabel("\n".join(part or " " for part in shown), fontsize=_SMALL, labelpad=1.5)


def _cover(axes: Axes, picture: Picture, stage: Stage, holders: bool) -> None:
    """Cover the removed and the idle patches, and outline those that own others."""
    gh, gw = stage.alive.shape
    lost = stage.lost if holders else stage.gone
    veil: NDArray[np.float64] = np.zeros((gh, gw, 4))
    veil[lost] = _LOST
    owners = np.unique(stage.holder[stage.held & holders])
    if holders:
        veil[stage.pooled] = _POOLED
    regions = np.where(stage.held, stage.holder, -1)
    regions.flat[owners] = owners
    _draw_lines(axes, _borders(regions), "black", "white")
    pixels = torch.from_numpy(picture.pixels).movedim(-1, 0).double()
    means = adaptive_avg_pool2d(pixels, picture.grid).movedim(0, -1).numpy()
    for owner in owners:
        region = regions == owner
        veil[region, :3], veil[region, 3] = means[region].mean(axis=0), 1
        row, column = divmod(int(owner), gw)
        outline = Rectangle((column + 0.12, row + 0.12), 0.76, 0.76, fill=False, zorder=4)
        casing = withStroke(linewidth=1.8, foreground="black")
        outline.set(edgecolor="white", linewidth=0.6, path_effects=[casing])
        axes.add_patch(outline)
    veil[stage.idle] = _IDLING
    axes.imshow(veil, extent=(0, gw, gh, 0), interpolation="nearest", aspect=axes.get_aspect())
    _strokes(axes, stage.idle, _HATCHES)
    _strokes(axes, lost, _DIAGONALS)
    _draw_edges(axes, stage, gw)


def _draw_edges(axes: Axes, stage: Stage, gw: int) -> None:
    """Lines from a few removed patches, which have dots, to their neighbours that remain."""
    parts = np.array_split(np.unique(stage.edges[:, 1]), _TRACED)
    # Evenly over the image: of all of them, nothing could be seen.
    shown = [part[len(part) // 2] for part in parts if len(part)]
    for patch, colour in zip(shown, palette(_TRACED), strict=False):
        rows, across = np.divmod(stage.edges[stage.edges[:, 1] == patch], gw)
        ends = np.stack((across + 0.5, rows + 0.5), axis=-1)
        _draw_lines(axes, list(ends), colour, "white", width=0.8, zorder=5)
        axes.plot(
            *ends[0, 1], marker="o", markersize=4, color=colour, markeredgecolor="white",
            markeredgewidth=0.6, zorder=6,
        )  # fmt: skip


def _draw_links(axes: Axes, stage: Stage) -> None:
    """A line from each removed patch to the patch whose token owns it, which has a dot."""
    held = np.flatnonzero(stage.held)
    rows, across = np.divmod(
        np.stack((held, stage.holder.flat[held]), axis=-1), stage.alive.shape[1]
    )
    ends = np.stack((across + 0.5, rows + 0.5), axis=-1)
    _draw_lines(axes, list(ends), "black", "white")
    axes.plot(
        *ends[:, 1].T, linestyle="none", marker="o", markersize=2, color="black",
        markeredgecolor="white", markeredgewidth=0.4, zorder=4,
    )  # fmt: skip


def _borders(region: NDArray[np.int64]) -> list[Any]:
    """Lines between neighbouring patches of different regions."""
    down = (region[1:] != region[:-1]).nonzero()
    across = (region[:, 1:] != region[:, :-1]).nonzero()
    lines: list[Any] = [((c, r + 1), (c + 1, r + 1)) for r, c in zip(*down, strict=True)]
    return lines + [((c + 1, r), (c + 1, r + 1)) for r, c in zip(*across, strict=True)]


def _strokes(axes: Axes, where: NDArray[np.bool_], lines: Sequence[tuple[float, ...]]) -> None:
    """Draw the same hatching in some patches."""
    drawn = [
        ((column + x0, row + y0), (column + x1, row + y1))
        for row, column in np.argwhere(where).tolist()
        for x0, y0, x1, y1 in lines
    ]
    _draw_lines(axes, drawn, "white", "black")


def _draw_lines(
    axes: Axes, lines: list[Any], colour: Any, casing: str, width: float = 0.5, zorder: int = 3
) -> None:
    axes.add_collection(_cased(lines, colour, casing, width, zorder))


def _cased(
    lines: list[Any], colour: Any, casing: str, width: float = 0.5, zorder: int = 3
) -> LineCollection:
    """Lines in a casing of the other lightness, to be seen on dark and bright patches."""
    drawn = LineCollection(lines, colors=colour, linewidths=width, zorder=zorder)
    drawn.set_path_effects([withStroke(linewidth=2.2 * width, foreground=casing)])
    return drawn


class _Swatch(Patch):
    """A patch of the picture for the legend, with the ``strokes`` that it has there."""

    strokes: Sequence[tuple[float, ...]] = ()


class _SwatchHandler(HandlerPatch):
    def create_artists(
        self, legend: Any, handle: Any, x: float, y: float, width: float, height: float,
        fontsize: float, transform: Any,
    ) -> list[Artist]:  # fmt: skip
        drawn = super().create_artists(legend, handle, x, y, width, height, fontsize, transform)
        lines: list[Any] = [
            ((width * x0 - x, height * y0 - y), (width * x1 - x, height * y1 - y))
            for x0, y0, x1, y1 in handle.strokes
        ]
        strokes = _cased(lines, "white", "black")
        strokes.set_transform(transform)
        return [*drawn, strokes]


def _legend(picture: Picture, holders: bool) -> list[Any]:
    """Handles of what occurs in the picture."""
    # What a stage has, then label, face, edge and strokes of its swatch.
    offered: list[tuple[str, str, Any, Any, Sequence[tuple[float, ...]]]] = [
        ("idle", "idles", "0.25", "white", _HATCHES)
    ]
    if holders:
        offered += [
            ("held", "owns others: their mean colour", "0.85", "black", ()),
            ("pooled", "removed, in a fused token", _POOLED, "0.6", ()),
            ("lost", "removed, nothing left", "white", "black", _DIAGONALS),
        ]
    else:
        offered.append(("gone", "gone", "white", "black", _DIAGONALS))
    stages = [stage for row in picture.rows for stage in row.stages]
    handles = list[Any]()
    for name, label, face, edge, strokes in offered:
        if any(getattr(stage, name).any() for stage in stages):
            swatch = _Swatch(facecolor=face, edgecolor=edge, linewidth=0.6, label=label)
            swatch.strokes = strokes
            handles.append(swatch)
    if any(len(stage.edges) for stage in stages):
        look: Any = {"marker": "o", "markersize": 4, "color": palette(1)[0]}
        handles.append(
            Line2D([], [], linewidth=0.8, label="graph edges of a removed patch", **look)
        )
    return handles
