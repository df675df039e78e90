"""What results share: text, HTML, a CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from rich.table import Table
from rich.text import Text

from tokenred.analysis import Comparison
from tokenred.analysis.result import FramedResult, Result, figure_notes, resolution
from tokenred.analysis.terminal_table import plain_table
from tokenred.core.errors import OutputExistsError


@dataclass(frozen=True, eq=False, repr=False)
class _Result(FramedResult):
    def table(self) -> Table:
        table = plain_table(f"of {self.about}", ["name of the thing", "share [%]"])
        for row in self.frame.to_dict("records"):
            table.add_row(str(row["name"]), str(row["share"]))
        return table


def _result(data: str = "digits") -> _Result:
    frame = pd.DataFrame({"name": ["a", "b"], "share": [1, 22], "model": "ViT", "data": data})
    return _Result(frame, 0.95, ("small print",))


def test_printed() -> None:
    text = str(_result())
    assert "of ViT on digits" in text
    # Square brackets are no style here, and numbers end in one column.
    assert "share [%]" in text
    rows = [line.rstrip() for line in text.splitlines() if line.startswith(("a ", "b "))]
    assert len(rows) == 2
    assert len(rows[0]) == len(rows[1])
    assert text.endswith("small print")
    assert str(_result("")).splitlines()[0].strip() == "of ViT"
    assert repr(_result()) == "_Result(2 rows)"


def test_csv(tmp_path: Path) -> None:
    path = _result().to_csv(tmp_path / "x.csv")
    pd.testing.assert_frame_equal(pd.read_csv(path), _result().frame)
    with pytest.raises(OutputExistsError):
        _result().to_csv(path)
    _result().to_csv(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


def test_html_has_the_whole_table_and_escapes_what_users_wrote() -> None:
    class Hostile(Result):
        def table(self) -> Table:
            table = Table(title="a & b[/b]")
            table.add_column("name")
            table.add_column(Text("share\n[90% <interval>]"), justify="right")
            table.add_row(Text("gtp [x]"), Text("1.0", style="dim"))
            table.add_row(Text("<script>"), Text("2.0"))
            return table

        def footnotes(self) -> list[str]:
            return ["", "small < print"]

    html = Hostile()._repr_html_()
    root = ElementTree.fromstring(f"<div>{html.replace('<br>', '|')}</div>")
    found = [(node.tag, node.text) for node in root.iter() if node.text and node.text.strip()]
    assert found == [
        ("caption", "a & b[/b]"), ("th", "name"), ("th", "share|[90% <interval>]"),
        ("td", "gtp [x]"), ("td", "1.0"), ("td", "<script>"), ("td", "2.0"), ("p", "small < print"),
    ]  # fmt: skip
    assert html.count("text-align: right") == 3
    assert "[bold]" not in html
    assert str(Hostile()).endswith("small < print")


NAMES = ("gtp", "tome:r=(8,-1.0),proportional_attention=False@0.65")


def comparison(names: Sequence[str] = NAMES) -> Comparison:
    figures = {
        "gmacs": 4.598, "images_per_second": 1034.2, "speedup": 1.234, "speedup_low": 1.221,
        "speedup_high": 1.246, "realised": 0.912, "top1": 79.83, "difference": -0.25,
        "difference_low": -0.41, "difference_high": -0.09, "images": 50_000, "tokenred": "1",
        "torch": "2", "timm": "1", "pairs": 9, "batch_size": 1, "precision": "f", "device": "cpu",
        "processor": "CPU", "threads": 2, "seed": 0, "weights": "abc", "model": "DeiT-S",
        "data": "val",
    }  # fmt: skip
    rows = [{"strategy": name, "tokens": [196, 188, 180, 172, 164], **figures} for name in names]
    rows[-1]["images_per_second"] = 1276.2
    return Comparison(pd.DataFrame(rows), 0.95, ())


def test_results_are_short_in_a_prompt() -> None:
    assert repr(comparison()) == "Comparison(2 rows)"
    assert "<table>" in comparison()._repr_html_()


@pytest.mark.parametrize("width", [60, 80, 100, 120, None])
def test_no_number_is_cut_on_a_narrow_terminal(
    width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    text = str(comparison()).partition("\n\nSpeed:")[0]
    assert max(map(len, text.splitlines())) <= (width or 140)
    assert "…" not in text
    headings = [
        "1034",
        "1276",
        "GMACs",
        "per second",
        "speed-up over dense",
        "realised",
        "fraction",
        "top-1",
    ]
    numbers = ["4.598", "1.23 [1.22, 1.25]", "0.91", "79.83", "-0.25 [-0.41, -0.09]"]
    for told in (*headings, *numbers):
        assert text.count(told) == (2 if told in numbers else 1), told
    # What the token counts were is the first to go; names come again in each part.
    assert "196→" not in text
    assert ("196→" in str(comparison(["gtp"]))) == (width is None)
    assert text.count("gtp") == {60: 5, 80: 4, 100: 2, 120: 2, None: 1}[width]


def test_an_overhead_that_nobody_knows_is_told() -> None:
    rows = [
        {"strategy": "gtp", "gmacs": 1.0, "overhead_gmacs": 0.1},
        {"strategy": "mine", "gmacs": 1.0, "overhead_gmacs": float("nan")},
        {"strategy": "ats", "gmacs": 1.0, "overhead_gmacs": None, "mean_overhead_gmacs": 0.0},
    ]
    assert not figure_notes(rows[::2])
    assert figure_notes(rows)[0].startswith("The GMACs of mine leave out")
    assert figure_notes([*rows, {**rows[1], "strategy": "own"}])[0].startswith(
        "The GMACs of mine, own leave out"
    )


@pytest.mark.parametrize(
    ("low", "value", "high", "told"),
    [
        (0.74, 0.83, 0.93, True), (1.01, 1.2, 1.3, True), (0.98, 1.0, 1.01, False),
        (0.997, 0.998, 0.999, False),  # printed as 1.00 [1.00, 1.00]
    ],
)  # fmt: skip
def test_an_unsteady_machine_is_told(low: float, value: float, high: float, told: bool) -> None:
    frame = comparison(["dense", "gtp"]).frame.assign(method=["dense", "gtp"])
    frame.loc[0, ["speedup_low", "speedup", "speedup_high"]] = low, value, high
    words = f"against itself measured {value:.2f} [{low:.2f}, {high:.2f}], so speed-ups of this run"
    assert any(words in note for note in figure_notes(frame.to_dict("records"))) == told


def test_images_that_cannot_rank_methods() -> None:
    row = {"images": 9, "difference": 0.0, "difference_low": -9.0, "difference_high": 9.0}
    told = "cannot rank"
    assert told in resolution([row], 0.95)
    assert told not in resolution([row, {**row, "difference": -1.0}], 0.95)


def test_what_the_stricter_test_does_not_establish_is_named() -> None:
    gap = {"difference": -4.0, "difference_low": -8.0, "difference_high": -0.1, "images": 400}
    doubtful = {**gap, "strategy": "evit@0.6", "p_value": 0.06}
    sure = {**gap, "strategy": "topk", "p_value": 0.01}
    told = resolution([doubtful, sure], 0.95)
    assert told.endswith("Not established by McNemar's exact test: evit@0.6 (p = 0.06).")
    assert "McNemar" not in resolution([sure], 0.95)
    assert "McNemar" not in resolution([doubtful | {"difference_high": 0.1}], 0.95)
