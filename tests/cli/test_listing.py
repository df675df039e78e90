"""The list holds every registered part."""

import pytest

from tests.cli.conftest import Run
from tokenred.cli.listing import split_citation
from tokenred.core.registry import KINDS


def test_everything_is_listed(run: Run) -> None:
    result = run("list")
    assert result.exit_code == 0
    for kind in KINDS.values():
        for name in kind.names():
            assert name in result.stdout
    assert "keep_rate=0.7" in result.stdout


def test_one_kind(run: Run) -> None:
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
    assert split_citation(summary) == (what, paper)
