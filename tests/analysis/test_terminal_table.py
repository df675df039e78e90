"""Nothing is cut in a table for a terminal; names are folded between words."""

import pytest
from rich.console import Console
from rich.text import Text

from tokenred.analysis.terminal_table import fold, plain_table


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120])
def test_what_is_folded_is_whole_and_breaks_between_words(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = {"name": 0, "what it does": 30, "arguments": 0, "paper": 18, "defined in": 0}
    cells = ["proportional", "Keeps what the CLS token attends to, and fuses the rest into one.",
             "gtp:P=4,proportional_attention=True,alpha=0.1,theta=0.95,reference=False@0.65",
             "ATC, Haurum et al., ECCV 2024", "tokenred.strategies.recipes.clustering"]  # fmt: skip
    table = plain_table("", list(columns), left=5, keys=1)
    for column, least in zip(table.columns, columns.values(), strict=True):
        column.no_wrap, column.min_width = column.header == Text("name"), least
    table.add_row(*map(Text, cells))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    printed = captured.get().splitlines()
    assert max(map(len, printed)) <= width
    words = " ".join(printed).split()
    for word in (*cells[1].split(), *cells[3].split(), "reference=False"):
        assert any(word in shown for shown in words), word


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (44, ["scorer=LocalContrast(reach=1.5, power=2),", "fuser=merge"]),
        (36, ["scorer=LocalContrast(reach=1.5,", "power=2), fuser=merge"]),
        (23, ["scorer=LocalContrast(", "reach=1.5, power=2),", "fuser=merge"]),
        (12, ["scorer=Local", "Contrast(", "reach=1.5,", "power=2),", "fuser=merge"]),
    ],
)
def test_parentheses_are_broken_only_if_they_do_not_fit(width: int, lines: list[str]) -> None:
    assert fold("scorer=LocalContrast(reach=1.5, power=2), fuser=merge", width).split("\n") == lines
