"""What results share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from rich.table import Table

from tokenred.analysis.framed import Framed, plain_table
from tokenred.core.errors import OutputExistsError


@dataclass(frozen=True, eq=False, repr=False)
class _Result(Framed):
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
