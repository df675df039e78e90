"""Make the figures of ``docs/gallery.md``: run the studies behind them, then draw.

Run from the root of a checkout. The studies take some minutes on one core and are kept as CSV
files, so that a second run only draws::

    python scripts/gallery.py --model cifar10_vit --data cifar10:cifar10-test.zip --limit 500

Without ``--model`` the bundled digits are used. Pictures of tokens and graphs show a drawing of a
ship, as the bundled CIFAR-10 model sees it; agreement and break-even are of the bundled digits.
With ``--real MODEL --photographs IMAGE …`` (a file of ``scripts/real_vit.py``) there is one more
picture for each photograph: what a method of each family keeps of it at half of the GMACs.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter
from torch import nn

import tokenred as tr
from tokenred.analysis import (
    agreement,
    agreement_map,
    break_even_chart,
    compare,
    draw_graph,
    heat_map,
    image_graph,
    metric_lines,
    read_published,
    save_figure,
    scorer_comparison,
    show_tokens,
    sweep,
    tabulate,
    trace_picture,
    tradeoff,
)
from tokenred.analysis.measure.timing import resize
from tokenred.analysis.plots.published import GTP_PAPER as PUBLISHED
from tokenred.analysis.plots.tables import theta_rows
from tokenred.models import load_model
from tokenred.strategies.specs import METHODS, Spec

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "images" / "gallery"
MOST = 150_000  # bytes; a larger picture gets a palette
NARROW_DPI, WIDE_DPI, WIDE = 200, 140, 5  # inches
PHOTOGRAPH_DPI = 110


@dataclass(frozen=True)
class Run:
    """The model and data of the studies, and how many images."""

    model: nn.Module
    name: str
    data: str
    limit: int

    def study(self, axes: Mapping[str, Sequence[Any]], **fixed: Any) -> pd.DataFrame:
        """GTP with every combination of values: one column per axis, one row per combination."""
        cells = [
            dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
        ]
        return self.cells(cells, **fixed)

    def cells(self, cells: Sequence[Mapping[str, Any]], **fixed: Any) -> pd.DataFrame:
        """GTP with each of these settings, all on the same images, and the dense model."""
        specs = {}
        for cell in cells:
            label = ",".join(f"{name}={value}" for name, value in cell.items())
            specs[label] = Spec(label, "gtp", tr.strategy("gtp", **{**fixed, **cell}))
        result = self.compare(specs, timing=False).frame
        settings = pd.DataFrame([{}, *({**fixed, **cell} for cell in cells)])
        return pd.concat([settings, result], axis=1)

    def compare(self, strategies: Any, **options: Any) -> Any:
        """On one thread, so that the times can be repeated on a busy machine."""
        return compare(
            self.model, self.data, strategies, limit=self.limit, batch_size=50, threads=1,
            name=self.name, **options,
        )  # fmt: skip


def methods(run: Run) -> pd.DataFrame:
    """Five methods at several budgets, with their speed."""
    counts, rates = (3, 5, 7), (0.8, 0.65, 0.5)
    written = [f"gtp:P={n}" for n in counts] + [f"tome:r={n}" for n in counts]
    written += [f"{name}:keep_rate={rate}" for name in ("evit", "topk", "random") for rate in rates]
    frame: pd.DataFrame = run.compare(written, pairs=9).frame
    return frame


ALPHAS, COUNTS = (0.0, 0.1, 0.2, 0.4, 0.8), (3, 5, 7)
STUDIES: dict[str, Callable[[Run], pd.DataFrame]] = {
    "methods": methods,
    "alpha-m": lambda run: run.study({"alpha": ALPHAS, "M": (4, 8, 16, 32)}, P=7),
    "alpha-p": lambda run: run.study({"alpha": ALPHAS, "P": COUNTS}, M=8),
    "scorers": lambda run: run.study({"scorer": tr.list_scorers(), "P": COUNTS}),
    "graphs": lambda run: run.study(
        {"graph": ("mixed", "spatial", "semantic", "none"), "P": COUNTS}
    ),
    "thetas": lambda run: run.cells(
        [
            {"theta": theta, "proportional_attention": theta < 1, "P": count}
            for theta in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
            for count in COUNTS
        ]
    ),
}


def paper(**chosen: Any) -> Any:
    """Published points."""
    return read_published(PUBLISHED, **chosen)


FIGURES: dict[str, tuple[str, Callable[[pd.DataFrame], Figure]]] = {
    "tradeoff-gmacs": ("methods", lambda frame: tradeoff(frame, front=True)),
    "tradeoff-speed": (
        "methods",
        lambda frame: tradeoff(frame, x="images_per_second", relative=True, front=True),
    ),
    "tradeoff-published": (
        "methods",
        lambda frame: tradeoff(
            frame, relative=True, published=paper(table=1, backbone=["DeiT-S", "DeiT-B"]), width=7,
        ),
    ),
    "heat-map": ("alpha-m", lambda frame: heat_map(frame, "alpha", "M")),
    "lines": ("alpha-p", lambda frame: metric_lines(frame, "alpha", hue="P")),
    "scorers": ("scorers", scorer_comparison),
    "scorers-one-budget": ("scorers", lambda frame: scorer_comparison(frame, fixed={"P": 7})),
    "graph-table": (
        "graphs", lambda frame: tabulate(frame, "graph", published=PUBLISHED, table=4).figure(),
    ),
    "theta-table": (
        "thetas",
        lambda frame: tabulate(frame, theta_rows(frame), published=PUBLISHED, table=5).figure(
            width=7
        ),
    ),
}  # fmt: skip


def ship(side: int = 512) -> Image.Image:
    """A drawing of a ship at sea, which `cifar10_vit` recognises."""
    y, x = np.linspace(0, 1, side)[:, None, None], np.linspace(0, 1, side)[None, :, None]
    sky = np.array([0.45, 0.65, 0.92]) + y * np.array([0.5, 0.35, 0.06])
    waves = 0.036 * np.sin(2 * np.pi * (18 * y**1.5 + 1.5 * np.sin(9 * x + 30 * y)))
    sea = np.array([0.15, 0.4, 0.52]) - y * np.array([0.1, 0.15, 0.1]) + waves
    pixels = np.where(y > 0.62, sea, np.broadcast_to(sky, sea.shape)).clip(0, 1)
    image = Image.fromarray((255 * pixels).astype(np.uint8))
    draw, unit = ImageDraw.Draw(image), side / 100

    def at(*places: float) -> list[float]:
        return [unit * place for place in places]

    for x0, y0, r in ((20, 18, 7), (28, 16, 9), (37, 19, 6), (78, 12, 5), (84, 13, 7)):
        draw.ellipse(at(x0 - 1.4 * r, y0 - 0.6 * r, x0 + 1.4 * r, y0 + 0.6 * r), (250, 250, 252))
    draw.polygon(at(12, 58, 92, 56, 82, 74, 20, 74), (178, 34, 34))
    draw.polygon(at(12, 58, 92, 56, 91, 59, 13, 61), (245, 245, 240))
    draw.rectangle(at(28, 46, 66, 58), (240, 240, 235))
    draw.rectangle(at(36, 38, 58, 46), (225, 228, 230))
    for window in range(6):
        draw.rectangle(at(31 + 6 * window, 50, 34 + 6 * window, 53), (60, 90, 120))
    draw.rectangle(at(42, 25, 50, 38), (30, 30, 35))
    draw.rectangle(at(42, 28, 50, 31), (200, 60, 40))
    draw.line(at(74, 57, 74, 32), (50, 50, 50), width=round(unit))
    return image.filter(ImageFilter.GaussianBlur(unit / 2))


def tokens(strategies: Sequence[str], **options: Any) -> Figure:
    """A picture of tokens on the ship."""
    edges = options.pop("edges", False)
    layers = options.pop("layers", None)
    picture = trace_picture(load_model("cifar10_vit"), ship(), strategies, layers, edges=edges)
    return show_tokens(picture, **options)


TOKEN_PICTURES: dict[str, Callable[[], Figure]] = {
    "tokens": lambda: tokens(["gtp:P=5", "tome:r=5", "evit", "idlevit"]),
    "tokens-column": lambda: tokens(["gtp:P=5", "topk"], holders=False, width=3.3),
    "tokens-graph": lambda: tokens(["gtp:P=5"], layers=(0, 2, 4), edges=True, width=5),
}


FAMILIES = ("gtp", "topk", "evit", "tome", "atc", "idlevit")


def photographed(model: Path, photograph: Path) -> Figure:
    """What a method of each family does to a photograph, at half of the GMACs."""
    base = load_model(model)
    resize(base, (224, 224))
    with Image.open(photograph) as image:
        picture = trace_picture(base, image, [f"{name}@0.5" for name in FAMILIES], (5, 11))
    return show_tokens(picture, width=4.2)


def agreements(folder: Path) -> Figure:
    """Which patches five methods keep, on the bundled digits."""
    model = load_model("digits")
    return agreement_map(agreement(model, "digits", METHODS, limit=100, name="digits"))


def whole_graph(folder: Path) -> Figure:
    """The token graph of the ship, and how often each patch is chosen."""
    made = image_graph(load_model("cifar10_vit"), ship())
    return draw_graph(made.graph, made.pixels, patches=(43, 25, 58), in_degree=True)


def break_even(folder: Path) -> Figure:
    """The batch size from which methods pay off, on the bundled model; kept like the studies."""
    return break_even_chart(
        sweep(
            "digits", [f"{name}@0.65" for name in ("gtp", "tome", "evit", "topk")],
            folder / "break-even.db", batch_sizes=(1, 4, 16, 64), threads=(1,), pairs=15,
        )
    )  # fmt: skip


OTHERS: dict[str, Callable[[Path], Figure]] = {
    "agreement": agreements,
    "graph": whole_graph,
    "break-even": break_even,
}


def frame_of(name: str, folder: Path, run: Run) -> pd.DataFrame:
    """The frame of a study, from its CSV if it exists."""
    path = folder / f"{name}.csv"
    if not path.exists():
        print(f"running {name}", flush=True)
        STUDIES[name](run).to_csv(path, index=False)
    # Read back, so that the figures are the same as from the command line.
    from tokenred.analysis.plots.frames import read_frame

    return read_frame(path)


def main() -> None:
    """Parse the command line, run what is missing, draw everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="digits", help="as for tokenred compare")
    parser.add_argument("--data", default="digits", help="as for tokenred compare")
    parser.add_argument("--limit", type=int, default=1000, help="images of a study")
    parser.add_argument("--frames", type=Path, default=ROOT / "tokenred-out" / "gallery")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("--real", type=Path, help="file of scripts/real_vit.py")
    parser.add_argument("--photographs", type=Path, nargs="*", default=[], help="for that model")
    parser.add_argument("--only", nargs="*", help="names of figures; all by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(load_model(given.model), Path(given.model).stem, given.data, given.limit)
    for folder in (given.out, given.frames):
        folder.mkdir(parents=True, exist_ok=True)
    ship().save(given.out / "ship.png")
    makers: dict[str, Callable[[], Figure]] = {
        name: lambda study=study, draw=draw: draw(frame_of(study, given.frames, run))
        for name, (study, draw) in FIGURES.items()
    } | TOKEN_PICTURES
    makers |= {name: lambda draw=draw: draw(given.frames) for name, draw in OTHERS.items()}
    for photograph in given.photographs:
        makers[photograph.stem] = partial(photographed, given.real, photograph)
    for name in given.only or makers:
        figure = makers[name]()
        dpi = WIDE_DPI if figure.get_figwidth() >= WIDE else NARROW_DPI
        dpi = PHOTOGRAPH_DPI if isinstance(makers[name], partial) else dpi
        [path] = save_figure(figure, given.out / f"{name}.png", overwrite=True, dpi=dpi)
        if path.stat().st_size > MOST:
            with Image.open(path) as image:
                few = image.convert("RGB").quantize(128)
            few.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
