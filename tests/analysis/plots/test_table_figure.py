"""A table drawn: every value, the best bold, blocks below or beside each other."""

from __future__ import annotations

from tokenred.analysis.plots.table import Block, Table

TABLE = Table(
    heads=("θ", "log s"),
    rows=(("0.5", "yes"), ("best", "no")),
    column_head="P",
    metric="top-1 accuracy (%)",
    blocks=(
        Block("measured", "ViT on data", ("3",), ((71.0,), (None,))),
        Block("published", "DeiT-S", ("4", "8"), ((79.8, 79.5), (79.8, 79.0))),
    ),
    note="α=0.1",
)


def test_every_value_is_written_and_the_best_is_bold() -> None:
    ours, theirs = TABLE.figure(title="graphs").axes
    # A row that a source says nothing of is left out of its block.
    assert [t.get_text() for t in ours.texts] == ["71.0"]
    assert [t.get_text() for t in ours.get_yticklabels()] == ["θ=0.5, with log s"]
    assert [t.get_text() for t in theirs.texts] == ["79.8", "79.5", "79.8", "79.0"]
    assert [t.get_fontweight() for t in theirs.texts] == ["bold", "bold", "bold", "normal"]
    assert [t.get_text() for t in theirs.get_xticklabels()] == ["P=4", "P=8"]
    assert [t.get_text() for t in theirs.get_yticklabels()] == [
        "θ=0.5, with log s", "best, no log s",
    ]  # fmt: skip
    assert theirs.get_title(loc="left") == "published\nDeiT-S"


def test_narrow_and_wide() -> None:
    narrow, wide = TABLE.figure(width=3.3), TABLE.figure(width=7)
    assert narrow.axes[0].get_subplotspec().get_geometry()[:2] == (2, 1)
    assert wide.axes[0].get_subplotspec().get_geometry()[:2] == (1, 2)
    assert "top-1 accuracy (%); bold: the best of a column; α=0.1" in wide.get_supxlabel()


def test_what_may_be_chance_stays_pale() -> None:
    values = ((71.0,), (70.0,))
    shades = []
    for half in (None, 2.0):
        block = Block("measured", "ViT", ("3",), values, half_width=half)
        table = Table(("graph",), (("mixed",), ("none",)), "P", "top-1 (%)", (block,), "")
        shades.append(table.figure().axes[0].images[0].get_array()[0, 0])
    assert shades == [1.0, 0.25]
