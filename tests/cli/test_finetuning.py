"""``tokenred finetune`` on the embedded model and data."""

from __future__ import annotations

from pathlib import Path

import tokenred as tr
from tests.cli.conftest import Run


def test_trains_and_resumes(run: Run) -> None:
    words = ("finetune", "-s", "evit@0.6", "--epochs", 1, "--limit", 96, "--set", "mixup=0",
             "-o", "run", "--no-progress")  # fmt: skip
    first = run(*words)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("evit@0.6: top-1 ")
    model = tr.load("run/last.safetensors")
    assert model.cost().gmacs <= 0.6 * tr.gmacs(model.base)
    assert "already contains a run" in run(*words).refusal
    assert run(*words, "--resume").stdout == first.stdout


def test_dry_run(run: Run) -> None:
    result = run("finetune", "-s", "dynamicvit", "--preset", "paper", "--dry-run", "--lr", 0.5,
                 "-o", "run")  # fmt: skip
    assert result.exit_code == 0, result.output
    for words in ("lr 0.5", "backbone_frozen 5", "GMACs an image"):
        assert words in result.stdout
    assert not Path("run").exists()
