"""What a report can be made from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis.reporting.sources import OVERSMOOTHING, RESULTS, SWEEP, read_source
from tokenred.analysis.study.store import Store
from tokenred.core.errors import DataError, InputError, TokenredError


def test_a_store_by_path_or_itself(store: Path) -> None:
    for given in (store, str(store), Store(store, readonly=True)):
        source = read_source(given)
        assert source.kind == RESULTS
        assert source.axes == ("alpha", "P", "theta")
        assert len(source.frame) == 6
        assert "dense model" in source.note
    assert read_source(store).name == "runs.db"


def test_a_store_under_another_name(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "results.bin"
    other.write_bytes(store.read_bytes())
    assert len(read_source(other).frame) == 6


def test_kinds(comparison, sweep, curves, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert read_source(comparison).kind == RESULTS
    assert read_source(comparison).axes == ()
    assert read_source(sweep).kind == SWEEP
    assert read_source(sweep.drop(columns=["speedup"])).kind == SWEEP
    assert read_source(curves).kind == OVERSMOOTHING
    comparison.to_csv(tmp_path / "a.csv", index=False)
    assert len(read_source(tmp_path / "a.csv").frame) == 3


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.db"):
        read_source(tmp_path / "nowhere.db")
    with pytest.raises(InputError, match="empty"):
        read_source(pd.DataFrame())
    with pytest.raises(InputError, match="int"):
        read_source(3)
    Store(tmp_path / "new.db").close()
    with pytest.raises(InputError, match="no results yet"):
        read_source(tmp_path / "new.db")
    (tmp_path / "broken.db").write_text("no database")
    with pytest.raises(TokenredError):
        read_source(tmp_path / "broken.db")
