"""Tables as text: Markdown and LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenred.analysis.plots.table import show

if TYPE_CHECKING:
    from tokenred.analysis.plots.table import Table

__all__ = ["latex", "markdown"]

_SPECIAL = str.maketrans({
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "θ": r"$\theta$", "α": r"$\alpha$", "ρ": r"$\rho$", "±": r"$\pm$", "×": r"$\times$",
})  # fmt: skip


def markdown(table: Table) -> str:
    """See `Table.markdown`."""
    heads = list(table.heads)
    for block in table.blocks:
        # Markdown has one row of heads: the source goes into the first of its columns.
        first, *rest = (f"{table.column_head}={column}" for column in block.columns)
        heads += [f"{block.title}, {first}", *rest]
    rule = ["---"] * len(table.heads) + ["---:"] * (len(heads) - len(table.heads))
    rows = [_row(table, i, "**{}**") for i in range(len(table.rows))]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
             for row in (heads, rule, *rows)]  # fmt: skip
    return "\n".join([*lines, "", f"{table.metric}. {table.note}".strip(". ") + "."])


def latex(table: Table) -> str:
    """See `Table.latex`."""
    width = len(table.heads)
    columns = "l" * width + "".join("r" * len(block.columns) for block in table.blocks)
    groups, rules, at = [""] * width, [], width
    for block in table.blocks:
        count = len(block.columns)
        groups.append(rf"\multicolumn{{{count}}}{{c}}{{{_escaped(block.title)}}}")
        rules.append(rf"\cmidrule(lr){{{at + 1}-{at + count}}}")
        at += count
    heads = [_escaped(head) for head in table.heads]
    heads += [
        f"${_escaped(table.column_head)}={_escaped(column)}$"
        for block in table.blocks
        for column in block.columns
    ]
    body = [
        " & ".join([*map(_escaped, table.rows[i]), *_row(table, i, r"\textbf{{{}}}")[width:]])
        for i in range(len(table.rows))
    ]
    return "\n".join([
        f"% {table.metric}. {table.note}".strip(". "),
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
        " & ".join(groups) + r" \\", "".join(rules), " & ".join(heads) + r" \\", r"\midrule",
        *(line + r" \\" for line in body), r"\bottomrule", r"\end{tabular}",
    ])  # fmt: skip


def _row(table: Table, i: int, bold: str) -> list[str]:
    cells = list(table.rows[i])
    for block in table.blocks:
        for j, value in enumerate(block.values[i]):
            cells.append(bold.format(show(value)) if block.is_best(i, j) else show(value))
    return cells


def _escaped(text: str) -> str:
    return text.translate(_SPECIAL)
