"""What results share: text, HTML, a CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from rich.table import Table
from rich.text import Text

from tokenred.analysis import Comparison, Oversmoothing, Reproduction, Study, Sweep
from tokenred.analysis.result import FramedResult, Result, plain_table
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


@pytest.mark.parametrize("kind", [Comparison, Oversmoothing, Reproduction, Study, Sweep])
def test_finished_measurements_are_results(kind: type) -> None:
    assert issubclass(kind, Result)
    assert kind.to_csv is Result.to_csv
