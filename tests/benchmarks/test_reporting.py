"""Goals are judged as they are meant, and tables say what was measured."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.analysis.sweep_rows import make_row


def _row(**changes: Any) -> dict[str, Any]:
    return make_row(ms_q1=95.0, ms_q3=105.0, created="2030-01-02T00:00:00+00:00", **changes)


def test_speed_falls_short_only_with_its_whole_interval(reporting: ModuleType) -> None:
    check = reporting.realised(0.95, "gtp:P=8")
    assert check.holds(_row(realised=0.90, realised_high=0.96))
    assert not check.holds(_row(realised=0.90, realised_high=0.94))
    assert check.applies(_row())
    assert not check.applies(_row(strategy="gtp:P=9"))
    slower = reporting.no_slower()
    assert not slower.applies(_row(batch_size=1))
    assert slower.holds(_row(speedup=0.98, speedup_high=1.01))
    assert not slower.holds(_row(speedup=0.98, speedup_high=0.99))


def test_shares_and_memory(reporting: ModuleType) -> None:
    share = reporting.choosing(0.03, tokens=785)
    assert not share.applies(_row(split_choosing=0.02))
    assert not share.applies(_row(tokens=785))
    assert share.holds(_row(tokens=785, split_choosing=0.03))
    assert not share.holds(_row(tokens=785, split_choosing=0.031))
    less = reporting.less_memory("gtp:P=8")
    assert not less.applies(_row())
    assert not less.holds(_row(peak_bytes=5, dense_peak_bytes=5))
    assert less.holds(_row(peak_bytes=4, dense_peak_bytes=5))
    square = reporting.no_square(batch_size=8)
    most = 4 * 8 * 197**2
    assert square.holds(_row(peak_bytes=most + 4, dense_peak_bytes=5))
    assert not square.holds(_row(peak_bytes=most + 5, dense_peak_bytes=5))


def test_a_table(reporting: ModuleType) -> None:
    rows = [
        _row(peak_bytes=2**20, dense_peak_bytes=2**21),
        _row(batch_size=1, realised_high=0.9),
        _row(status="out of memory", error="no room"),
    ]
    checks = (reporting.realised(0.95, "gtp:P=8"), reporting.no_slower())
    text = reporting.markdown(rows, checks, ["python", "a b.py", "x"])
    command, _, header, rule, first, second, third, _, machine = text.splitlines()
    assert command == "`python 'a b.py' x`"
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert rule.count("---") == len(columns)
    cells = dict(zip(columns, (c.strip() for c in first.strip("|").split("|")), strict=True))
    assert cells["strategy"] == "`gtp:P=8`"
    assert cells["speed-up [90%]"] == "1.200 [1.100, 1.300]"
    assert cells["peak MiB (dense)"] == "1 (2)"
    assert cells["ms [quartiles]"] == "100 [95, 105]"
    assert cells["goal"] == "realised ≥ 0.95 ✓; not slower ✓"
    assert second.endswith("| realised ≥ 0.95 ✗ |")
    assert third.endswith("| out of memory |")
    for fact in ("P, 2 cores, 2 threads, cpu, float32", "torch 2", "15 pairs, 2030-01-02"):
        assert fact in machine


def test_the_split_and_what_varies(reporting: ModuleType) -> None:
    names = ("attention", "statistics", "selection", "graph", "fuse", "choosing", "projections",
             "mlp", "untouched", "ends", "rest")  # fmt: skip
    shares = {f"split_{name}": i / 100 for i, name in enumerate(names)}
    text = reporting.markdown([_row(**shares), _row(model="other")], (), ["x"])
    header, _, first, second = text.splitlines()[2:6]
    assert header.startswith("| model | strategy |")
    assert " mlp % |" in header
    assert "| 7.0 |" in first
    assert second.startswith("| other |")


def test_a_readme_is_filled(reporting: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n")
    reporting.write_readme(path, "x", "new\n")
    reporting.write_readme(path, "y", "too")
    assert path.read_text() == (
        "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n<!-- y -->\ntoo\n<!-- /y -->\n"
    )
    with pytest.raises(ValueError, match="no such section"):
        reporting.write_readme(path, "z", "new")
