"""`report`: whole pages of real results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.reporting.pages import check_page
from tokenred.analysis import report
from tokenred.analysis.reporting import make_page
from tokenred.core.errors import ConfigError, DataError, OutputExistsError


def test_a_store(store: Path, tmp_path: Path) -> None:
    path = report(store, tmp_path / "report.html")
    text = path.read_text()
    page = check_page(text)
    results, failed, origins = page.tables
    assert len(results) == len(origins) == 1 + 6
    assert len(failed) == 1 + 1
    assert len(page.pictures) == 4
    assert "Token reduction: digits on digits" in text
    assert "gtp:alpha=0.3,P=5" in text
    # An error's text is text.
    assert "<script>document" not in text
    assert "&lt;script&gt;document" in text


def test_several_sources(store, comparison, curves, tmp_path) -> None:  # type: ignore[no-untyped-def]
    comparison.to_csv(tmp_path / "a.csv", index=False)
    curves.to_csv(tmp_path / "b.csv", index=False)
    page = make_page([tmp_path / "a.csv", str(tmp_path / "b.csv")], title="Both")
    assert page.title == "Both"
    headings = [section.heading for section in page.sections]
    assert "a.csv: Results" in headings
    assert "b.csv: Figures" in headings
    path = report([comparison, curves], tmp_path / "r.html")
    assert len(check_page(path.read_text()).tables) == 4


def test_refused_before_anything_is_read(tmp_path: Path, comparison: pd.DataFrame) -> None:
    (tmp_path / "old.html").write_text("mine")
    with pytest.raises(OutputExistsError):
        report(tmp_path / "nowhere.db", tmp_path / "old.html")
    with pytest.raises(ConfigError, match=r"\.html"):
        report(tmp_path / "nowhere.db", tmp_path / "report.pdf")
    with pytest.raises(DataError, match="folder"):
        report(tmp_path / "nowhere.db", tmp_path / "none" / "report.html")
    with pytest.raises(ConfigError, match="level"):
        report(comparison, tmp_path / "new.html", level=95)
    with pytest.raises(ConfigError, match="empty list"):
        report([], tmp_path / "new.html")
    assert (tmp_path / "old.html").read_text() == "mine"
    assert not (tmp_path / "new.html").exists()


def test_overwriting(tmp_path: Path, comparison: pd.DataFrame) -> None:
    (tmp_path / "old.html").write_text("mine")
    report(comparison, tmp_path / "old.html", overwrite=True)
    assert "mine" not in (tmp_path / "old.html").read_text()
