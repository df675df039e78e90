"""The page of a reproduction, and the figures in it."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.reports.pages import check_page
from tests.analysis.reproduction.parts import make_part
from tokenred.analysis import Reproduction
from tokenred.analysis.reproduction.judge import Part, part_of_tokens
from tokenred.analysis.reproduction.outcome import figure_of


def _text(tmp_path: Path, *parts: Part) -> str:
    return Reproduction(parts, None, 1000).to_html(tmp_path / "page.html").read_text()


def _words(part: Part) -> str:
    """All that is written in a figure."""
    figure = figure_of(part)
    assert figure is not None
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    words = [text.get_text() for legend in legends for text in legend.get_texts()]
    for axes in figure.axes:
        words += [text.get_text() for text in axes.texts]
        words += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(), axes.get_title("left")]
    return " ".join(words)


@pytest.mark.parametrize(
    ("name", "label"),
    [("table1", "top-1"), ("figure5", "top-1 accuracy (%)"), ("appendix", "semantic neighbours M"),
     ("table4", "measured"), ("table5", "measured")],
)  # fmt: skip
def test_figures_say_what_they_are_and_what_is_published(name: str, label: str) -> None:
    for own in (True, False):
        words = _words(make_part(name, own=own))
        assert label in words
        assert ("published" in words) == (own and name.startswith("table"))


def test_one_finished_cell_makes_no_figure() -> None:
    assert figure_of(make_part("table1", finished=1)) is None
    assert figure_of(make_part("table1", finished=2)) is not None


def test_tokens_that_were_followed() -> None:
    rows = [
        {"strategy": name, "layer": layer, "statistic": "cosine", "mean": 0.5, "low": 0.4,
         "high": 0.6, "difference": 0.2, "difference_low": 0.1, "difference_high": 0.3,
         "tokens": 9, "gmacs": 1.0, "model": "m", "data": "d", "method": name, "images": 10}
        for name in ("dense", "gtp") for layer in range(3)
    ]  # fmt: skip
    part = make_part("figure6", own=False)
    followed = part_of_tokens(part.experiment, part.target, pd.DataFrame(rows))
    figure = figure_of(followed)
    assert figure is not None
    assert len(figure.axes) == 2
    assert [row.get("why", "")[:11] for row in followed.rows] == ["", "above dense"]


def test_a_section_for_every_experiment_and_commands_for_what_was_not_run(tmp_path: Path) -> None:
    parts = make_part("table1", off=-9), make_part("table2"), make_part("figure1")
    text = _text(tmp_path, *parts)
    page = check_page(text)
    summary, *tables = page.tables
    assert summary[0][3:] == ["✓ as published", "✗ differs", "not run", "measured only"]
    assert [row[0] for row in summary[1:]] == ["table1", "table2", "figure1"]
    # What is only drawn, of others' rows, has no table.
    assert (len(tables), len(page.pictures)) == (2, 3)
    assert {"#part-1", "#part-2", "#part-3"} <= set(page.references)
    rows = tables[0][1:]
    differing = [row for row in rows if row[5] == "✗ differs"]
    assert sum(int(cell or 0) for cell in summary[1][3:]) == len(rows)
    assert differing
    assert all(row[2] and row[3] for row in differing)  # ours and theirs
    assert {"GMACs", "top-1 %"} <= {row[1] for row in rows}
    for words in ("Hollow, dotted: published", "Commands for the figures that were not run",
                  "tokenred finetune --model deit_small", 'class="open"',
                  'class="good"'):  # fmt: skip
        assert words in text, words


def test_a_figure_that_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    part = make_part("table1")
    assert part.frame is not None
    mixed = part.frame.assign(model=["<b>another</b>", *part.frame["model"][1:]])
    part = replace(part, experiment=replace(part.experiment, chart="heat_map"), frame=mixed)
    text = _text(tmp_path, part)
    assert not check_page(text).pictures
    assert "Not drawn: " in text
