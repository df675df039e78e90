"""Tables say what the rows say, and name what failed."""

from __future__ import annotations

from rich.console import Console, RenderableType

from tests.analysis.sweep_rows import make_row
from tokenred.analysis.measure.split import LINES
from tokenred.analysis.sweep_tables import footnotes, split_table, sweep_table

CELL = "digits, gtp:P=4, batch 8, float32, cpu"


def _text(table: RenderableType) -> str:
    console = Console(width=140, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_settings_that_vary_are_columns_and_the_others_the_title() -> None:
    rows = [make_row("a"), make_row("b", dtype="bfloat16")]
    title, _, header, first, second = _text(sweep_table(rows)).splitlines()
    assert title.split() == ["vit,", "images", "224x224,", "cpu"]
    assert header.split()[0] == "dtype"
    assert first.split()[:3] == ["float32", "gtp:P=8", "8"]
    assert second.split()[0] == "bfloat16"
    for figure in ("3.000", "80.0", "1.20 [1.10, 1.30]", "1.33", "0.90 [0.82, 0.97]"):
        assert figure in first
    assert "peak" not in header


def test_a_failed_row_has_no_figures() -> None:
    rows = [make_row("a"), make_row("b", status="out of memory", error="no room")]
    last = _text(sweep_table(rows)).splitlines()[-1]
    assert last.split() == ["gtp:P=8", "8", "out", "of", "memory"]
    notes = footnotes(rows, [])
    assert "Out of memory: vit, gtp:P=8, batch 8, images 224x224: no room" in notes


def test_peak_memory() -> None:
    rows = [make_row("a", peak_bytes=2**20, dense_peak_bytes=3 * 2**19), make_row("b")]
    lines = _text(sweep_table(rows)).splitlines()
    assert lines[-2].endswith("1.0 (1.5)")
    assert any("not seen" in line for line in footnotes(rows, []))


def test_the_split_has_a_column_for_each_line_that_took_time() -> None:
    shares = {f"split_{name}": 0.0 for name in LINES}
    shares |= {"split_mlp": 0.5, "split_attention": 0.46, "split_graph": 0.04}
    more = {"split_choosing": 0.04, "split_cost_of_looking": 0.013}
    lines = _text(split_table([make_row("a", **shares, **more), make_row("b")])).splitlines()
    assert len(lines) == 4
    assert lines[-1].split() == ["gtp:P=8", "8", "46.0%", "4.0%", "50.0%", "4.0%", "+1.3%"]
    assert "fuse" in lines[-2]
    assert not {"whole", "embed,"} & set(" ".join(lines).split())


def test_a_full_split_fits_beside_a_long_name() -> None:
    shares = {f"split_{name}": 0.5 for name in (*LINES, "choosing", "cost_of_looking")}
    text = _text(
        split_table([make_row("a", strategy="gtp:P=8,theta=0.6,threshold=fast", **shares)])
    )
    assert "…" not in text
    assert text.splitlines()[-1].count("50.0%") == len(LINES) + 2


def test_refusals_of_one_reason_are_one_line() -> None:
    refused = [(CELL, "no such device"), ("another", "no such device"),
               (CELL, "too small")]  # fmt: skip
    assert footnotes([], refused) == [
        "Not possible: digits, gtp:P=4, batch 8, float32, cpu and 1 more: no such device",
        "Not possible: digits, gtp:P=4, batch 8, float32, cpu: too small",
    ]


def test_pairs() -> None:
    assert "Speed: 15 pairs" in footnotes([make_row("a")], [])[0]
    assert "Speed: 3 to 15 pairs" in footnotes([make_row("a"), make_row("b", pairs=3)], [])[0]
