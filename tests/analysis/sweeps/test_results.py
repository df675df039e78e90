"""What a sweep shows and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.analysis.sweeps.rows import make_row
from tokenred.analysis import Sweep
from tokenred.analysis.sweeps.log import append_result
from tokenred.core.errors import OutputExistsError


def test_of_a_cell_measured_again_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows: list[dict[str, Any]] = [
        make_row("a", status="failed", error="x"), make_row("b"), make_row("a")
    ]  # fmt: skip
    for row in rows:
        append_result(path, row)
    found = Sweep.read(path)
    assert found.rows == (rows[2], rows[1])
    assert found.path == path
    assert found.failures == ()


def test_csv_and_frame(tmp_path: Path) -> None:
    failed = make_row("b", batch_size=64, status="out of memory", error="no room")
    found = Sweep((make_row("a"), failed))
    path = found.to_csv(tmp_path / "r.csv")
    back = pd.read_csv(path)
    assert back["speedup"][0] == pytest.approx(1.2)
    assert back["error"].tolist()[1] == "no room"
    assert len(found.frame()) == 2
    with pytest.raises(OutputExistsError):
        found.to_csv(path)


def test_the_chart() -> None:
    found = Sweep((make_row("a"), make_row("b", batch_size=64)))
    assert found.plot(title="here").get_suptitle() == "here"


def test_an_empty_sweep_is_printed() -> None:
    assert str(Sweep(())) == ""
