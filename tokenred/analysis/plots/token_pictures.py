"""Token pictures (Fig. 4 of the GTP paper): which tokens remain, and which patches they own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokenred.analysis.plots.canvas import Colour, new_grid, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Picture", "PictureRow", "Stage", "show_tokens"]

# Covers of patches, with their opacity, and the colours of their hatchings.
_LOST, _POOLED, _IDLING = (1.0, 1.0, 1.0, 0.93), (0.5, 0.5, 0.5, 0.75), (0.0, 0.0, 0.0, 0.65)
_HELD_OPACITY = 0.75
_IDLE_STROKE, _LOST_STROKE = "0.6", "0.75"
_DIAGONALS = ((0.3, 0.3, 0.7, 0.7), (0.3, 0.7, 0.7, 0.3))
_HATCHES = ((0, 1, 1, 0), (0, 0.5, 0.5, 0), (0.5, 1, 1, 0.5))
_SMALL = 6.5  # points
_LINE = 0.13  # inches, height of a text line
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
        depth: blocks of the model.
        dense: the row of the unreduced model, without stages.
        rows: one per strategy.
        classes: names of the classes, or None.
    """

    pixels: NDArray[np.float32]
    grid: tuple[int, int]
    depth: int
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
    picture: Picture, *, holders: bool = True, title: str | None = None, width: float = 7.0
) -> Figure:
    """The photograph and what remains of it after some blocks: one row per strategy.

    A patch whose token remains is shown unchanged. A removed patch is covered: in the colour of the
    patch whose token owns it (which is outlined in that colour), grey if a token of no single patch
    owns it, or white and crossed if nothing of it is left. An idle patch is dark and hatched. If
    the picture has edges, thin lines show the edges of the token graph between remaining and
    removed patches.

    Args:
        picture: the result of `tokenred.analysis.trace_picture`.
        holders: show the owner of each removed patch; otherwise all removed patches are white and
            crossed.
        title: title of the figure; None for none.
        width: in inches; the height is derived from it.
    """
    columns = 1 + max(len(row.stages) for row in picture.rows)
    high, wide = picture.pixels.shape[:2]
    panel = width / columns - 0.04
    lines = 2 if panel < _NARROW else 1
    legend = _legend(picture, holders)
    legend_columns = max(1, int(width / 1.38))
    height = len(picture.rows) * (panel * high / wide + (lines + 1.3) * _LINE + 0.05)
    height += 1.3 * _LINE * -(-len(legend) // legend_columns) + 0.1 + 0.2 * bool(title)
    with new_grid(width, height, len(picture.rows), columns) as (figure, grid):
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        for axes in grid.flat:
            axes.set_axis_off()
        for at, row in enumerate(picture.rows):
            _photograph(grid[at, 0], picture)
            _head(grid[at, 0], row.label, picture.said(row))
            dense = ("dense:", picture.said(picture.dense)) if at == 0 else ("", "")
            _caption(grid[at, 0], *dense, lines, panel)
            for axes, stage in zip(grid[at, 1:], row.stages, strict=False):
                _photograph(axes, picture)
                _cover(axes, stage, holders)
                _caption(axes, f"block {stage.layer},", _count(stage), lines, panel)
        if title:
            figure.suptitle(title)
        if legend:
            figure.legend(
                handles=legend, loc="outside lower center", ncols=legend_columns, handlelength=1.1,
                handleheight=1.1, fontsize=_SMALL, columnspacing=1.2,
            )  # fmt: skip
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


def _count(stage: Stage) -> str:
    idle = int(stage.idle.sum())
    return f"{stage.tokens - idle}/{stage.tokens} pass" if idle else f"{stage.tokens} tokens"


def _cover(axes: Axes, stage: Stage, holders: bool) -> None:
    """Cover the removed and the idle patches, and outline those that own others."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    gh, gw = stage.alive.shape
    lost = stage.lost if holders else stage.gone
    colours = _colours(stage) if holders else {}
    veil: NDArray[np.float64] = np.zeros((gh, gw, 4))
    veil[lost] = _LOST
    if holders:
        veil[stage.pooled] = _POOLED
    for holder, colour in colours.items():
        veil[stage.held & (stage.holder == holder)] = (*_light(colour), _HELD_OPACITY)
    veil[stage.idle] = _IDLING
    axes.imshow(veil, extent=(0, gw, gh, 0), interpolation="nearest", aspect=axes.get_aspect())
    for holder, colour in colours.items():
        row, column = divmod(holder, gw)
        corner, side = (column + 0.09, row + 0.09), 1 - 2 * 0.09
        axes.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=0.9, zorder=4)
        )
    _strokes(axes, stage.idle, _IDLE_STROKE, _HATCHES)
    _strokes(axes, lost, _LOST_STROKE, _DIAGONALS)
    if len(stage.edges):
        rows, across = np.divmod(stage.edges, gw)
        ends = np.stack((across + 0.5, rows + 0.5), axis=-1)
        # The more edges, the lighter each; white beneath, for dark photographs.
        opacity = min(0.6, max(0.15, 60 / len(ends)))
        for shade, width in (("white", 0.9), ("black", 0.35)):
            axes.add_collection(
                LineCollection(list(ends), colors=shade, linewidths=width, alpha=opacity, zorder=3)
            )


def _colours(stage: Stage) -> dict[int, Colour]:
    """A colour for each patch that owns others, different from those of adjacent regions."""
    # Without grey, which has another meaning here.
    shades = [shade for i, shade in enumerate(palette(10)) if i != 7]
    used = [0] * len(shades)
    numbers: dict[int, int] = {}
    for holder in dict.fromkeys(stage.holder[stage.held].tolist()):
        beside: set[int] = set()
        for row, column in np.argwhere(stage.holder == holder):
            around = stage.holder[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            beside |= {numbers[other] for other in around.flatten().tolist() if other in numbers}
        # The least used colour that no neighbour has.
        numbers[holder] = min(range(len(shades)), key=lambda n: (n in beside, used[n], n))
        used[numbers[holder]] += 1
    return {holder: shades[number] for holder, number in numbers.items()}


def _strokes(
    axes: Axes, where: NDArray[np.bool_], colour: str, lines: Sequence[tuple[float, ...]]
) -> None:
    """Draw the same hatching in some patches, so that covers differ from dark or bright images."""
    from matplotlib.collections import LineCollection

    drawn = [
        ((column + x0, row + y0), (column + x1, row + y1))
        for row, column in np.argwhere(where).tolist()
        for x0, y0, x1, y1 in lines
    ]
    axes.add_collection(LineCollection(drawn, colors=[colour], linewidths=0.5, zorder=3))


def _light(colour: Colour) -> Colour:
    r, g, b = (0.45 + 0.55 * part for part in colour)
    return r, g, b


def _legend(picture: Picture, holders: bool) -> list[Any]:
    """Handles of what occurs in the picture."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colour = palette(1)[0]
    # What a stage has, then label, face, edge and hatching of its swatch.
    offered: list[tuple[str, str, Any, Any, str | None]] = [
        ("idle", "idles", "0.25", _IDLE_STROKE, "//////")
    ]
    if holders:
        offered += [
            ("held", "owns others", "none", colour, None),
            ("held", "removed, in another token", _light(colour), "0.6", None),
            ("pooled", "removed, in a fused token", _POOLED, "0.6", None),
            ("lost", "removed, nothing left", "white", _LOST_STROKE, "xxx"),
        ]
    else:
        offered.append(("gone", "gone", "white", _LOST_STROKE, "xxx"))
    stages = [stage for row in picture.rows for stage in row.stages]
    handles: list[Any] = [
        Patch(facecolor=face, edgecolor=edge, linewidth=0.6, hatch=hatch, label=label)
        for name, label, face, edge, hatch in offered
        if any(getattr(stage, name).any() for stage in stages)
    ]
    if any(len(stage.edges) for stage in stages):
        handles.append(Line2D([], [], color="black", linewidth=0.5, alpha=0.6, label="graph edge"))
    return handles
