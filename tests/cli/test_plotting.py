"""``tokenred plot``: each kind makes its file."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Run
from tokenred.analysis.plots.published import GTP_PAPER as PUBLISHED


@pytest.fixture(autouse=True)
def _frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = {"strategy": "x", "method": "gtp", "model": "ViT", "data": "digits", "images": 100}
    axes = {"alpha": (0.1, 0.2), "P": (3, 5), "graph": ("mixed", "none"), "scorer": ("A", "B"),
            "theta": (1.0, 0.5)}  # fmt: skip
    rows = [
        {**dict(zip(axes, values, strict=True)), **common, "top1": 70.0 - i, "gmacs": 1.0 + i}
        for i, values in enumerate(itertools.product(*axes.values()))
    ]
    pd.DataFrame(rows).to_csv("study.csv", index=False)
    pd.DataFrame([
        {"method": "dense", "gmacs": 4.0, "top1": 80.0, "images": 100},
        {"method": "gtp", "gmacs": 3.0, "top1": 79.0, "images": 100},
    ]).to_csv("comparison.csv", index=False)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("tradeoff", ["comparison.csv", "--published", PUBLISHED, "--table", 1, "--backbone",
                      "DeiT-S", "--off-the-shelf", "--relative", "--front"]),
        ("lines", ["study.csv", "--x", "alpha", "--hue", "P", "--fix", "graph=none"]),
        ("heat-map", ["study.csv", "--x", "alpha", "--y", "P", "-f", "theta=0.5", "--height", 2]),
        ("scorers", ["study.csv", "--fix", "graph=mixed"]),
        ("graph-table", ["study.csv", "--published", PUBLISHED, "--backbone", "DeiT-S"]),
        ("theta-table", ["study.csv", "--width", 7, "--title", "θ"]),
    ],
)  # fmt: skip
def test_each_kind(run: Run, tmp_path: Path, kind: str, arguments: list[object]) -> None:
    result = run("plot", kind, *arguments)
    assert result.exit_code == 0, result.output
    assert f"Written: {kind}.png" in result.stdout
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert "--overwrite" in run("plot", kind, *arguments).refusal


def test_the_suffix_says_the_format(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("an older one")
    both = ("-o", "a.pdf", "-o", "a.png")
    result = run("plot", "scorers", "study.csv", "-f", "P=3", *both, "--overwrite")
    assert result.exit_code == 0, result.output
    assert "Written: a.pdf, a.png" in result.stdout
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_tables_are_printed_without_a_picture_where_only_text_is_asked_for(
    run: Run, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    for _ in range(2):
        result = run("plot", "graph-table", "study.csv", "--text", "latex")
        assert result.exit_code == 0, result.output
        assert r"\begin{tabular}{lrr}" in result.stdout
        assert "Written" not in result.output
    assert set(tmp_path.iterdir()) == before
    result = run("plot", "graph-table", "study.csv", "--text", "markdown", "-o", "graph-table.png")
    assert "| mixed | **" in result.stdout
    assert "Written: graph-table.png" in result.stdout
    result = run("plot", "graph-table", "study.csv", "--overwrite")
    assert "| mixed | **" in result.stdout
    result = run("plot", "table", "study.csv", "--rows", "alpha", "--columns", "scorer",
                 "-f", "P=3", "--text", "latex")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert r"$\alpha$ & scorer=A & scorer=B" in result.stdout
    assert "--rows" in run("plot", "table", "study.csv", "--overwrite").refusal


@pytest.mark.parametrize("kind", ["tradeoff", "table", "graph-table", "theta-table"])
def test_the_options_of_published_points_say_what_they_choose(run: Run, kind: str) -> None:
    told = " ".join(run("plot", kind, "--help").stdout.split())
    assert "only the paper's points from this table" in told
    assert "only the paper's points of this model" in told
    assert ("only the paper's points of this method" in told) == (kind == "tradeoff")
    assert "several backbones" not in told
