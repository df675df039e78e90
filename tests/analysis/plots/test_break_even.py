"""The chart has the lines it should, where the figures are."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from tests.analysis.sweep_rows import make_row
from tokenred.analysis import Sweep, break_even_chart
from tokenred.analysis.plots.looks import read_name
from tokenred.core.errors import InputError

BATCHES = (1, 8, 32)
SPEEDUPS = {"gtp:P=8": (0.7, 1.02, 1.25), "tome:r=8": (0.8, 1.1, 1.3)}


def _rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        make_row(
            f"{changes}{name}{batch}", strategy=name, batch_size=batch, speedup=value,
            speedup_low=value - 0.05, speedup_high=value + 0.05, **changes,
        )
        for name, values in SPEEDUPS.items()
        for batch, value in reversed(list(zip(BATCHES, values, strict=True)))
    ]  # fmt: skip


@pytest.fixture
def sweep() -> Sweep:
    return Sweep((*_rows(), make_row("x", batch_size=64, status="failed", error="x")))


def _lines(axes: Axes, style: str) -> list[Line2D]:
    return [line for line in axes.lines if line.get_linestyle() == style]


def test_lines_bands_and_words(sweep: Sweep) -> None:
    figure = break_even_chart(sweep)
    (axes,) = figure.axes
    break_even, *methods = _lines(axes, "-")
    assert list(break_even.get_ydata()) == [1, 1]
    for line, values in zip(methods, SPEEDUPS.values(), strict=True):
        assert np.allclose(line.get_xydata(), list(zip(BATCHES, values, strict=True)))
    assert [np.unique(line.get_ydata()) for line in _lines(axes, "--")] == [4 / 3, 4 / 3]
    bands = [c.get_paths()[0].vertices[:, 1] for c in axes.collections]
    assert [(b.min(), b.max()) for b in bands] == [
        pytest.approx((min(v) - 0.05, max(v) + 0.05)) for v in SPEEDUPS.values()
    ]
    assert figure.get_suptitle() == "vit, 224x224 px, float32"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "8", "32"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *map(read_name, SPEEDUPS), "break-even", "limit set by GMACs", "not significantly above 1",
    ]  # fmt: skip


def test_a_filled_marker_means_that_it_pays(sweep: Sweep) -> None:
    (axes,) = break_even_chart(sweep).axes
    filled = {}
    for line in _lines(axes, "None"):
        hollow = to_rgba(line.get_markerfacecolor()) == to_rgba("white")
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
            filled[float(y)] = (float(x), not hollow)
    # At batch 8 gtp's interval reaches below 1.
    assert filled == {
        0.7: (1, False), 1.02: (8, False), 1.25: (32, True),
        0.8: (1, False), 1.1: (8, True), 1.3: (32, True),
    }  # fmt: skip


def test_a_panel_a_setting() -> None:
    rows = _rows() + _rows(image_size="384x384") + _rows(image_size="384x384", dtype="bfloat16")
    figure = break_even_chart(pd.DataFrame(rows), width=3.5)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [
        "224x224 px\nfloat32", "384x384 px\nfloat32", "384x384 px\nbfloat16",
    ]  # fmt: skip
    assert figure.get_suptitle() == "vit"
    wide = break_even_chart(pd.DataFrame(rows), width=7, title="")
    assert wide.get_figheight() < figure.get_figheight()
    assert wide.get_suptitle() == ""


def test_what_was_measured_again_counts_once(sweep: Sweep) -> None:
    newer = make_row("n", batch_size=8, speedup=1.23, torch="3")
    (axes,) = break_even_chart(Sweep((*sweep.rows, newer))).axes
    _, gtp, _ = _lines(axes, "-")
    assert list(gtp.get_ydata()) == pytest.approx([0.7, 1.23, 1.25])


def test_refused(sweep: Sweep) -> None:
    with pytest.raises(InputError, match="allowed"):
        break_even_chart(sweep.frame().drop(columns="allowed"))
    with pytest.raises(InputError, match="finished cells"):
        break_even_chart(sweep.frame().query("status == 'failed'"))
