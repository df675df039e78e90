"""Dry runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study.worker import Runner


def test_lists_cells_and_gmacs_and_runs_nothing(
    make_grid: MakeGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = make_grid(
        {"graph": ["mixed", "none"], "M": [4, 8], "P": [2, 20]}, invalid="skip", against="dense"
    )
    small = make_grid({"graph": ["mixed"], "M": [4], "P": [2]})
    store = tmp_path / "a.db"
    small.run(store, progress=False)
    monkeypatch.setattr(Runner, "__call__", lambda *_: pytest.fail("ran"))
    frame = grid.dry_run(store)
    assert frame["status"].tolist() == [
        "done", "skipped", "to do", "skipped", "to do", "skipped", "repeated", "skipped"
    ]  # fmt: skip
    assert frame["gmacs"].tolist()[0] == pytest.approx(0.0553, abs=1e-3)
    assert frame["gmacs"].isna().tolist() == [False, True] * 4
    assert frame["tokens"].tolist()[0] == "64 62 60 58 56 54 52 50 48"
    assert frame["why"].tolist()[1].startswith("ScheduleError")
    assert list(frame.columns[:3]) == ["graph", "M", "P"]
    assert frame["key"].nunique() == 6
    fresh = grid.dry_run(tmp_path / "none.db")
    assert fresh["status"].tolist()[0] == "to do"
    assert not (tmp_path / "none.db").exists()
