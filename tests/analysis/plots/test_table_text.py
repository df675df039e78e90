"""Markdown and LaTeX, to the letter."""

from __future__ import annotations

from tokenred.analysis.plots.table import Block, Table

TABLE = Table(
    heads=("θ", "log s"),
    rows=(("0.5", "yes"), ("best", "no")),
    column_head="P",
    metric="top-1 accuracy (%)",
    blocks=(
        Block("measured", "my_vit on a|b", ("3",), ((71.0,), (70.5,))),
        Block("published", "DeiT-S", ("4", "8"), ((79.8, 79.5), (79.8, None))),
    ),
    note="α=0.1",
)


def test_markdown() -> None:
    assert TABLE.markdown().splitlines() == [
        "| θ | log s | measured: my_vit on a\\|b, P=3 | published: DeiT-S, P=4 | P=8 |",
        "| --- | --- | ---: | ---: | ---: |",
        "| 0.5 | yes | **71.0** | **79.8** | **79.5** |",
        "| best | no | 70.5 | **79.8** |  |",
        "",
        "top-1 accuracy (%). α=0.1.",
    ]
    assert str(TABLE) == TABLE.markdown()


def test_latex() -> None:
    assert TABLE.latex().splitlines() == [
        "% top-1 accuracy (%). α=0.1",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r" &  & \multicolumn{1}{c}{measured: my\_vit on a|b} & "
        r"\multicolumn{2}{c}{published: DeiT-S} \\",
        r"\cmidrule(lr){3-3}\cmidrule(lr){4-5}",
        r"$\theta$ & log s & $P=3$ & $P=4$ & $P=8$ \\",
        r"\midrule",
        r"0.5 & yes & \textbf{71.0} & \textbf{79.8} & \textbf{79.5} \\",
        r"best & no & 70.5 & \textbf{79.8} &  \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
