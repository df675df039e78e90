from __future__ import annotations

from pathlib import Path

import pytest

import tokenred as tr


def test_trains_and_resumes(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = ("finetune", "-s", "evit@0.6", "--epochs", 1, "--limit", 96, "--set", "mixup=0",
                 "-o", tmp_path / "run", "--no-progress")  # fmt: skip
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("evit@0.6: top-1 ")
    model = tr.load(tmp_path / "run" / "last.safetensors")
    assert model.cost().gmacs <= 0.6 * tr.gmacs(model.base)
    again = run(*arguments)
    assert again.exit_code == 2
    assert "holds a run already" in again.stderr
    assert run(*arguments, "--resume").stdout == first.stdout


def test_dry_run(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("finetune", "-s", "dynamicvit", "--preset", "paper", "--dry-run", "--lr", 0.5,
                 "-o", tmp_path / "run")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "lr 0.5" in result.stdout
    assert "backbone_frozen 5" in result.stdout
    assert "GMACs an image" in result.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "gtp", "--set", "mixup"], "--set KEY=VALUE"),
        (["-s", "gtp", "--set", "mixdown=1"], "unknown parameter of Settings"),
        (["-s", "gtp", "--preset", "letters"], "unknown training preset"),
        (["-s", "gpt"], "unknown strategy"),
        (["-s", "gtp", "--model", "deit_tiny_patch16_224"], "--data"),
        (["-s", "gtp", "--threads", "0"], "--threads"),
        (["-s", "gtp", "--epochs", "0"], "epochs"),
    ],
)
def test_refuses(run, tmp_path: Path, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    result = run("finetune", "-o", tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
