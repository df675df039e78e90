"""The list holds every registered part."""

from __future__ import annotations

import pytest

import tokenred as tr
from tokenred.cli.listing import _split


def test_everything_is_listed(run) -> None:  # type: ignore[no-untyped-def]
    result = run("list")
    assert result.exit_code == 0
    for names in (tr.list_strategies, tr.list_scorers, tr.list_graphs, tr.list_fusers,
                  tr.schedules.names, tr.selectors.names, tr.routers.names):  # fmt: skip
        for name in names():
            assert name in result.stdout
    assert "keep_rate=0.7" in result.stdout


def test_one_kind(run) -> None:  # type: ignore[no-untyped-def]
    result = run("list", "Graphs")
    assert "semantic" in result.stdout
    assert "gtp" not in result.stdout.replace("GTP", "").replace("gtp-vit", "")
    # Wide enough where no terminal limits it: no name is cut.
    assert "…" not in result.stdout


@pytest.mark.parametrize(
    ("summary", "what", "paper"),
    [
        ("Prune (EViT, Liang et al., ICLR 2022).", "Prune.", "EViT, Liang et al., ICLR 2022"),
        ("Mixed (GTP-ViT, Eq. 8); the default.", "Mixed; the default.", "GTP-ViT, Eq. 8"),
        ("The same P in every block (GTP's).", "The same P in every block (GTP's).", ""),
        ("", "", ""),
    ],
)
def test_papers_are_told_from_other_brackets(summary: str, what: str, paper: str) -> None:
    assert _split(summary) == (what, paper)
