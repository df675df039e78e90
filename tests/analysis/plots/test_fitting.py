"""No label covers another or leaves its figure, however long the names are."""

from collections.abc import Callable, Iterator
from itertools import combinations, product

import pandas as pd
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from tokenred.analysis import (
    agreement_map,
    break_even_chart,
    heat_map,
    metric_lines,
    scorer_comparison,
    smoothing_curves,
    tabulate,
    tradeoff,
)
from tokenred.core.errors import ConfigError

SCORERS = ("MixedAttn", "LocalContrast", "LocalContrast(reach=1.5, power=2.0)",
           "LocalContrast(reach=3, power=0.5)")  # fmt: skip
FUSERS = ("propagate", "merge", "prune")
STRATEGIES = tuple(f"gtp:scorer={name.replace(' ', '')},fuser=merge@0.6" for name in SCORERS)


def study() -> pd.DataFrame:
    rows = [
        {"scorer": scorer, "fuser": fuser, "strategy": f"{scorer}/{fuser}", "method": "gtp",
         "model": "cifar10_vit", "data": "cifar10", "gmacs": 0.066, "images": 400,
         "top1": 60.0 + at}
        for at, (scorer, fuser) in enumerate(product(SCORERS, FUSERS))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def comparison() -> pd.DataFrame:
    frame = pd.DataFrame({"method": STRATEGIES, "gmacs": range(4), "top1": range(4)})
    return frame.assign(model="cifar10_vit", data="cifar10")


def agreement() -> pd.DataFrame:
    rows = [
        {"a": a, "b": b, "layer": layer, "statistic": "iou", "mean": 0.5, "chance": 0.3,
         "model": "cifar10_vit", "data": "cifar10"}
        for a, b in combinations(STRATEGIES, 2) for layer in range(8)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def speeds() -> pd.DataFrame:
    rows = [
        {"strategy": name, "batch_size": size, "speedup": 1.2, "speedup_low": 1.1,
         "speedup_high": 1.3, "allowed": 1.5, "model": model, "dtype": "float32"}
        for name in STRATEGIES for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
        for model in ("cifar10_vit", "a_vision_transformer_of_ones_own.safetensors")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def smoothing() -> pd.DataFrame:
    rows = [
        {"strategy": name, "layer": layer, "statistic": statistic, "mean": 0.5, "low": 0.4,
         "high": 0.6}
        for name in STRATEGIES for layer in range(16) for statistic in ("cosine", "lost")
    ]  # fmt: skip
    return pd.DataFrame(rows)


FIGURES: dict[str, Callable[[float], Figure]] = {
    "heat map, names across": lambda width: heat_map(study(), "scorer", "fuser", width=width),
    "heat map, names down": lambda width: heat_map(study(), "fuser", "scorer", width=width),
    "lines, names across": lambda width: metric_lines(study(), "scorer", width=width),
    "lines, names in the legend": lambda width: metric_lines(
        study(), "fuser", hue="scorer", width=width
    ),
    "scorers": lambda width: scorer_comparison(study(), width=width),
    "rows": lambda width: tradeoff(study(), width=width),
    "trade-off": lambda width: tradeoff(comparison(), width=width),
    "table, names down": lambda width: tabulate(study(), "scorer", "fuser").figure(width=width),
    "table, names across": lambda width: tabulate(study(), "fuser", "scorer").figure(width=width),
    "pairs": lambda width: agreement_map(agreement(), width=width),
    "method by method": lambda width: agreement_map(agreement(), layer=2, width=width),
    "break-even": lambda width: break_even_chart(speeds(), width=width),
    "smoothing": lambda width: smoothing_curves(
        smoothing(), statistics=["cosine", "lost"], width=width
    ),
}


def _ticks(axis: Axis) -> Iterator[Text]:
    low, high = sorted(axis.get_view_interval())
    for tick, at in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=True):
        if low <= at <= high and tick.label1.get_visible():
            yield tick.label1
        if low <= at <= high and tick.label2.get_visible():
            yield tick.label2


def _texts(figure: Figure) -> list[list[Text]]:
    """Groups of texts of which none may cover another of its group."""
    axes = [one for one in figure.axes if one.get_visible()]
    groups = [list(_ticks(axis)) for one in axes for axis in (one.xaxis, one.yaxis)]
    groups += [[text for text in one.texts if type(text) is Text] for one in axes]
    groups += [legend.get_texts() for legend in figure.legends]
    titles = [text for one in axes for text in (one.title, one.xaxis.label, one.yaxis.label)]
    groups.append([*titles, *figure.texts])
    return [[text for text in group if text.get_text()] for group in groups]


@pytest.mark.parametrize("width", [2.5, 3.5, 7.0])
@pytest.mark.parametrize("kind", FIGURES)
def test_no_label_covers_another_or_leaves_the_figure(kind: str, width: float) -> None:
    figure = FIGURES[kind](width)
    figure.canvas.draw()
    assert figure.get_figwidth() == width
    written = ""
    for group in _texts(figure):
        boxes = [text.get_window_extent() for text in group]
        for text, box in zip(group, boxes, strict=True):
            assert 0 <= box.x0 < box.x1 <= figure.bbox.width, text
            assert 0 <= box.y0 < box.y1 <= figure.bbox.height, text
        for (a, first), (b, second) in combinations(zip(group, boxes, strict=True), 2):
            assert not first.overlaps(second), (a, b)
        written += " ".join(text.get_text() for text in group)
        assert not any(text.get_text().startswith((",", ")")) for text in group)
        assert not any("\n," in text.get_text() for text in group)
    whole = "".join(written.split())
    assert all(name.replace(" ", "") in whole for name in SCORERS)


@pytest.mark.parametrize(("x", "y"), [("scorer", "fuser"), ("fuser", "scorer")])
def test_a_size_that_is_too_small_is_refused(x: str, y: str) -> None:
    with pytest.raises(ConfigError, match=r"height of at least [23]\.\d inches .* got 1\.2"):
        heat_map(study(), x, y, height=1.2)
    with pytest.raises(ConfigError, match=r"the labels leave no room|width of at least"):
        heat_map(study(), x, y, width=1)


def test_names_keep_the_order_of_the_frame_and_numbers_are_sorted() -> None:
    axes = heat_map(study(), "fuser", "scorer", width=7).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == list(FUSERS)
    assert [text.get_text() for text in axes.get_yticklabels()] == list(SCORERS)
    axes = heat_map(study().assign(fuser=[3.0, 1, 2] * 4), "fuser", "scorer").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3"]
    numbers = study().assign(scorer=sorted([*range(4)] * 3, reverse=True))
    axes = metric_lines(numbers, "scorer").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "3"]
