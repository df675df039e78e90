"""`report`: whole pages of real results, read back."""

import base64
import hashlib
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.reports.pages import check_page
from tokenred._version import __version__
from tokenred.analysis import Store, report
from tokenred.analysis.reports.page import (
    Column,
    DataTable,
    Picture,
    Section,
    Value,
    figure,
    plain,
    write_page,
)
from tokenred.core.errors import ConfigError, DataError, OutputExistsError

EVIL = "</td><script>alert(1)</script>&\"'"


def _column(table: list[list[str]], name: str) -> list[str]:
    at = table[0].index(name)
    return [row[at] for row in table[1:]]


@pytest.fixture(scope="session")
def text(store: Path) -> str:
    """The page of a store."""
    return report(store, store.with_suffix(".html")).read_text()


def test_a_store(text: str) -> None:
    page = check_page(text)
    results, failed, origins = page.tables
    assert results[0][:4] == ["#", "α", "P", "θ"]
    assert {"GMACs", "top-1 %", "difference, points", "p", "luck", "status"} <= set(results[0])
    # One model and data: they stand among what all cells share.
    assert not {"model", "data"} & set(results[0])
    assert len(results) == len(origins) == 1 + 6
    assert _column(results, "status").count("failed") == 1
    assert _column(results, "image tokens").count("") == 1
    titles = re.findall("<figcaption><strong>(.*?)</strong>", text)
    assert titles == ["Accuracy against GMACs", "Along α", "Along P", "P by α"]
    assert len(page.pictures) == 4
    assert "Token reduction: digits on digits" in text
    assert "gtp:alpha=0.3,<wbr>P=5" in text  # where it may break
    # An error's text is text.
    assert len(failed) == 1 + 1
    assert "no luck" in failed[1][-1]
    assert "<script>document" not in text
    assert "&lt;script&gt;document" in text
    assert re.search("<summary>Traceback of cell [0-9]", text)
    assert "RuntimeError" in text


def test_files_of_one_name_are_told_apart(comparison: pd.DataFrame, tmp_path: Path) -> None:
    paths = [tmp_path / name / "comparison.csv" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        comparison.to_csv(path, index=False)
    text = report(paths, tmp_path / "both.html").read_text()
    assert all(f"{path}: Results" in text for path in paths)
    assert "comparison.csv: Results" in report(
        [paths[0], comparison], tmp_path / "one.html"
    ).read_text().replace(str(paths[0]), "")


def test_of_a_study_that_was_stopped(store: Path, tmp_path: Path, text: str) -> None:
    assert "All 6 results" in text
    half = tmp_path / "half.db"
    half.write_bytes(store.read_bytes())
    with Store(half) as opened, opened.writing():
        keys = [row["key"] for row in opened.rows()]
        opened.plan("study", [*keys, "one", "two"])
    page = report(half, tmp_path / "half.html").read_text()
    assert "6 of 8 results" in page
    assert "2 results of the study not there yet" in page


def test_what_produced_the_cells_is_told_once_and_whole(text: str) -> None:
    shared = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert {"model", "weights", "data", "seed", "dtype", "batch size", "device", "processor",
            "python", "torch", "timm", "tokenred", "host"} <= set(shared)  # fmt: skip
    assert shared["tokenred"] == __version__
    origins = check_page(text).tables[-1]
    names = {"strategy's configuration", "strategy's fingerprint", "time", "seconds taken"}
    assert names <= set(origins[0])
    assert not set(origins[0]) & set(shared)
    assert any("alpha=0.3" in row[1] for row in origins)
    assert all("scorer" in told for told in _column(origins, "strategy's configuration") if told)


def test_a_comparison_and_a_sweep(comparison, sweep, tmp_path) -> None:  # type: ignore[no-untyped-def]
    comparison.to_csv(tmp_path / "a.csv", index=False)
    text = report([tmp_path / "a.csv", sweep], tmp_path / "r.html", title="Both").read_text()
    assert "<h1>Both</h1>" in text
    assert "a.csv: Results" in text
    cells, _, speeds, failed, _ = check_page(text).tables
    assert _column(cells, "difference, points") == [
        "", "-1.00 [-2.00, +0.00]", "-2.00 [-3.00, -1.00]",
    ]  # fmt: skip
    assert _column(cells, "image tokens")[0] == "64→60→50→40→30"
    assert _column(speeds, "batch size") == ["1", "8", "1", "8", "8"]
    assert _column(speeds, "speed-up [90%]")[0] == "0.90 [0.80, 1.00]"
    assert len(failed) == 2


def test_what_a_strategy_does_not_read(comparison, tmp_path) -> None:  # type: ignore[no-untyped-def]
    comparison["unused"] = ["", *["graph: not read by Prune"] * 2]
    text = report(comparison, tmp_path / "r.html").read_text()
    assert "graph: not read by Prune: gtp@0.5 and 1 more." in text


def test_refused_before_anything_is_drawn(tmp_path: Path, comparison: pd.DataFrame) -> None:
    (tmp_path / "old.html").write_text("mine")
    with pytest.raises(OutputExistsError):
        report(comparison, tmp_path / "old.html")
    with pytest.raises(ConfigError, match=r"\.html"):
        report(comparison, tmp_path / "report.pdf")
    with pytest.raises(DataError, match="folder"):
        report(comparison, tmp_path / "none" / "report.html")
    with pytest.raises(DataError, match="nowhere"):
        report(tmp_path / "nowhere.db", tmp_path / "new.html")
    with pytest.raises(ConfigError, match="level"):
        report(comparison, tmp_path / "new.html", level=95)
    with pytest.raises(ConfigError, match="empty list"):
        report([], tmp_path / "new.html")
    assert [p.name for p in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "mine"
    report(comparison, tmp_path / "old.html", overwrite=True)
    assert "mine" not in (tmp_path / "old.html").read_text()


def test_everything_is_escaped_and_only_its_own_script_may_run(tmp_path: Path) -> None:
    bad = Column(
        EVIL, lambda row: Value(EVIL, mark="bad" if row["n"] else ""), code=True, help=EVIL
    )
    table = DataTable("t", EVIL, [bad, Column("n", figure("n", 0), True)], [{"n": 1}, {"n": None}])
    section = Section(
        "s", EVIL, (EVIL,), ((EVIL, EVIL),),
        (Picture(EVIL, EVIL, "data:image/png;base64,AA==", EVIL, EVIL),), (table,), ((EVIL, EVIL),),
    )  # fmt: skip
    path = write_page(tmp_path / "a.html", EVIL, EVIL, [section, Section("s2", "two")])
    html = path.read_text()
    page = check_page(html)
    assert page.names.count("script") == 1
    assert "<script>alert" not in html
    assert page.tables == [[[EVIL, "n"], [EVIL, "1"], [EVIL, ""]]]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src &#39;none&#39;" in policy
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy
    assert "unsafe" not in policy
    assert " style=" not in html
    empty = write_page(tmp_path / "b.html", "t", "s", [Section("a", "A")]).read_text()
    assert not {"table", "figure", "dl", "details", "nav"} & set(check_page(empty).names)


@pytest.mark.parametrize(
    ("value", "shown", "told"),
    [(1.005, "1.00", "1.005"), (-0.0001, "0.00", "-0.0001"), (3, "3.00", "3"), (None, "", ""),
     (math.nan, "", ""), ("x", "", "x"), ((0.1, 0.2), "", "[0.1, 0.2]")],
)  # fmt: skip
def test_numbers_and_values(value: object, shown: str, told: str) -> None:
    found = figure("x", 2)({"x": value})
    assert found.text == shown
    assert found.order == (value if shown else math.inf)
    assert figure("x", 1, signed=True)({"x": -0.04}).text == "+0.0"
    assert plain(value) == told
