"""Tables of a study, with a paper's beside them: as a frame, text and a figure."""

import pandas as pd
import pytest

from tokenred.analysis import tabulate
from tokenred.analysis.plots.published import GTP_PAPER
from tokenred.analysis.plots.tables import Table, theta_rows
from tokenred.core.errors import InputError


@pytest.fixture
def graphs(grid: pd.DataFrame) -> pd.DataFrame:
    one = grid[(grid["alpha"] == 0.1) & (grid["M"] == 8)].drop(columns=["alpha", "M"])
    rows = [
        one.assign(graph=name, top1=one["top1"] + i) for i, name in enumerate(["none", "mixed"])
    ]
    return pd.concat(rows, ignore_index=True)[["graph", *one.columns]]


@pytest.fixture
def table() -> Table:
    values = pd.DataFrame(
        [[71.04, 79.8, 79.5], [70.5, 79.84, None]],
        index=pd.MultiIndex.from_tuples([("0.5", "yes"), ("best", "no")], names=["θ", "log s"]),
        columns=pd.MultiIndex.from_tuples([
            ("measured: my_vit on a|b", "P=3"), ("published: DeiT-S", "P=4"),
            ("published: DeiT-S", "P=8"),
        ]),
    )  # fmt: skip
    return Table(values, "top-1 accuracy (%)", "α=0.1")


def test_published_values_beside_measured_ones(graphs: pd.DataFrame) -> None:
    table = tabulate(graphs, "graph", published=GTP_PAPER, table=4, backbone="DeiT-S")
    assert table.sources == ["measured: ViT on digits", "published: DeiT-S"]
    assert [name for (name,) in table.values.index] == ["none", "mixed", "spatial", "semantic"]
    ours, theirs = (table.values[source] for source in table.sources)
    assert list(ours.columns) == ["P=3", "P=5"]
    assert ours.to_numpy().tolist()[:2] == [pytest.approx([69, 67]), pytest.approx([70, 68])]
    assert ours.isna().to_numpy().tolist()[2:] == [[True] * 2] * 2
    assert table.note == "95% binomial intervals: about ±2.9"
    assert theirs.to_numpy().tolist()[:2] == [[79.6, 79.2, 78.7, 77.6], [79.8, 79.5, 79.1, 78.3]]


def test_theta_with_and_without_log_s(grid: pd.DataFrame) -> None:
    thetas = grid[grid["M"] == 8].drop(columns="M").rename(columns={"alpha": "theta"})
    assert theta_rows(thetas) == ["theta"]
    thetas.insert(1, "proportional_attention", thetas["theta"] < 0.4)
    table = tabulate(thetas, theta_rows(thetas), published=GTP_PAPER, table=5)
    assert table.values.index.names == ["θ", "log s"]
    names = [name for name, _ in table.values.index]
    assert names == ["0.1", "0.2", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1", "best"]
    assert dict(table.values.index)["0.4"] == "no"
    assert dict(table.values.index)["0.5"] == "yes"
    assert len(table.figure().axes) == len(table.sources) == 3
    assert "log s: proportional attention" in table.note


def test_best_as_printed_and_none_where_more_is_not_better(
    table: Table, graphs: pd.DataFrame
) -> None:
    assert table.best.to_numpy().tolist() == [[True, True, True], [False, True, False]]
    assert not tabulate(graphs, "graph", metric="gmacs").best.to_numpy().any()


def test_markdown(table: Table) -> None:
    assert str(table).splitlines() == [
        "| θ | log s | measured: my_vit on a\\|b, P=3 | published: DeiT-S, P=4 | "
        "published: DeiT-S, P=8 |",
        "| --- | --- | ---: | ---: | ---: |",
        "| 0.5 | yes | **71.0** | **79.8** | **79.5** |",
        "| best | no | 70.5 | **79.8** |  |",
        "",
        "top-1 accuracy (%). α=0.1.",
    ]
    alone = Table(table.values.iloc[:, :1], table.metric, table.note)
    head, *_, about = alone.markdown().splitlines()
    assert (head, about) == (
        "| θ | log s | P=3 |", "top-1 accuracy (%). measured: my_vit on a|b. α=0.1."
    )  # fmt: skip


def test_columns_are_the_budgets_or_the_only_other_axis(grid: pd.DataFrame) -> None:
    assert [name for _, name in tabulate(grid, "alpha").values] == ["P=3", "P=5"]
    one = grid[grid["P"] == 3]
    assert [name for _, name in tabulate(one, "alpha").values] == ["P=3"]
    named = one.drop(columns="P")
    assert [name for _, name in tabulate(named, "alpha").values] == ["M=4", "M=8"]
    with pytest.raises(InputError, match="besides alpha, the frame varies nothing: draw lines"):
        tabulate(named, "alpha", fixed={"M": 4})
    named.insert(0, "size", range(6))
    with pytest.raises(InputError, match=r"expected columns, the axis .* varies size, alpha"):
        tabulate(named, "M")


def test_latex(table: Table) -> None:
    assert table.latex().splitlines() == [
        "% top-1 accuracy (%). α=0.1",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"\multicolumn{2}{c}{} & measured: my\_vit on a|b & "
        r"\multicolumn{2}{c}{published: DeiT-S} \\",
        r"$\theta$ & log s & P=3 & P=4 & P=8 \\",
        r"\midrule",
        r"0.5 & yes & \textbf{71.0} & \textbf{79.8} & \textbf{79.5} \\",
        r"best & no & 70.5 & \textbf{79.8} &  \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_the_figure_has_every_value_and_the_best_bold(table: Table) -> None:
    table.values.iloc[1, 0] = float("nan")
    ours, theirs = table.figure(title="graphs").axes
    # A row that a source says nothing of is left out of its part.
    assert [t.get_text() for t in ours.texts] == ["71.0"]
    assert [t.get_text() for t in ours.get_yticklabels()] == ["θ=0.5, with log s"]
    assert [t.get_text() for t in theirs.texts] == ["79.8", "79.5", "79.8"]
    assert [t.get_fontweight() for t in theirs.texts] == ["bold"] * 3
    assert [t.get_text() for t in theirs.get_xticklabels()] == ["P=4", "P=8"]
    names = [t.get_text() for t in theirs.get_yticklabels()]
    assert names == ["θ=0.5, with log s", "best, no log s"]
    assert theirs.get_title(loc="left") == "published\nDeiT-S"
    assert ours.get_subplotspec().get_geometry()[:2] == (2, 1)
    wide = table.figure(width=7)
    assert wide.axes[0].get_subplotspec().get_geometry()[:2] == (1, 2)
    assert "top-1 accuracy (%); bold: the best of a column; α=0.1" in wide.get_supxlabel()


def test_what_may_be_chance_stays_pale(graphs: pd.DataFrame) -> None:
    table = tabulate(graphs, "graph")
    assert table.half_width is not None
    (axes,) = table.figure().axes
    assert axes.images[0].get_array().max() == pytest.approx(1 / (2 * table.half_width))


def test_refused(graphs: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the column theta"):
        tabulate(graphs, "theta")
    with pytest.raises(InputError, match="no row has table=9"):
        tabulate(graphs, "graph", published=GTP_PAPER, table=9)
    wide = pd.DataFrame([{"backbone": "DeiT-S", "P": 8, "top1": 79.5}])
    with pytest.raises(InputError, match="published points of this table needs the column graph"):
        tabulate(graphs, "graph", published=wide)
