"""The figure of an experiment, with the published points where there are some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenred.analysis.reporting.pictures import Drawing
from tokenred.analysis.reproduction.published import published_csv
from tokenred.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tokenred.analysis.reproduction.results import Part

__all__ = ["drawing_of"]

_WIDTH, _HEIGHT = 6.0, 3.6
_PANELS = ("cosine", "cosine_difference")


def drawing_of(part: Part) -> Drawing | None:
    """The figure of a part; None where there is nothing to draw."""
    title = f"{part.experiment.title}, {part.stand.name}"
    if part.follow is not None:
        return _smoothing(part.follow, title)
    frame = _frame(part)
    if frame is None:
        return None
    theirs = part.stand.name if part.stand.is_own else None
    kind = part.experiment.chart
    note = "Hollow, dotted: published." if theirs and kind == "tradeoff" else ""
    alt = f"{title}: top-1 accuracy. The table beneath holds the same figures."
    return Drawing(title, "", alt, lambda: _draw(kind, frame, part, theirs), note)


def _frame(part: Part) -> pd.DataFrame | None:
    """The finished cells, each once, the dense model with them."""
    import pandas as pd

    from tokenred.analysis.study.frame import tidy

    rows = {row["key"]: row for records in part.records for row in records if "top1" in row}
    if len(rows) < 2:
        return None
    axes = list(dict.fromkeys(n for p in part.points for c in p.cells for n in c if n != "base"))
    frame = tidy(list(rows.values()), axes)
    return frame if isinstance(frame, pd.DataFrame) else None


def _draw(kind: str, frame: pd.DataFrame, part: Part, backbone: str | None) -> Figure:
    from tokenred.analysis.plots.heat_map import heat_map
    from tokenred.analysis.plots.scorer_comparison import scorer_comparison
    from tokenred.analysis.plots.tables import graph_table, theta_table
    from tokenred.analysis.plots.tradeoff import tradeoff

    if kind == "scorers":
        return scorer_comparison(frame, width=_WIDTH)
    if kind == "heat_map":
        return heat_map(frame, "alpha", "M", width=_WIDTH)
    told: dict[str, Any] = {}
    if backbone is not None:
        told = {"published": published_csv(), "backbone": backbone}
    if kind == "graphs":
        return graph_table(frame, width=_WIDTH, **told)
    if kind == "theta":
        return theta_table(frame, width=_WIDTH, **told)
    published = _points(part, backbone) if backbone is not None else None
    return tradeoff(frame, published=published, title=backbone, width=_WIDTH, height=_HEIGHT)


def _points(part: Part, backbone: str) -> pd.DataFrame | None:
    """The published points of a trade-off, or None where they have no cost."""
    import pandas as pd

    from tokenred.analysis.plots.published import read_published, tradeoff_points

    found = []
    for table in part.experiment.tables:
        try:
            own = read_published(published_csv(), table=table, backbone=backbone, finetuned=False)
            found.append(tradeoff_points(own, "gmacs"))
        except InputError:  # no such rows, or without GMACs
            continue
    return pd.concat(found, ignore_index=True) if found else None


def _smoothing(frame: pd.DataFrame, title: str) -> Drawing:
    from tokenred.analysis.plots.smoothing_curves import smoothing_curves

    return Drawing(
        title, f"tokenred.analysis.smoothing_curves(frame, statistics={list(_PANELS)})",
        "Mean cosine similarity of the image tokens after each block, and its difference from the "
        "dense model, a curve for each strategy with its interval.",
        lambda: smoothing_curves(frame, statistics=_PANELS),
    )  # fmt: skip
