"""``tokenred finetune`` on the embedded model and data."""

import itertools
from pathlib import Path

import pytest
from PIL import Image

import tokenred as tr
from tests.cli.conftest import Run
from tokenred.data.classes import CIFAR10_CLASSES


def test_trains_and_resumes(run: Run) -> None:
    words = ("finetune", "-s", "evit@0.6", "--epochs", 1, "--limit", 96, "--set", "mixup=0",
             "-o", "run", "--no-progress")  # fmt: skip
    first = run(*words)
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:5]] == [
        "dense", "off the shelf", "epoch 1/1", "gain", "from dense"
    ]  # fmt: skip
    assert lines[0].endswith("0.06429 GMACs per image")
    # As many validation images as training images.
    assert lines[3].endswith("] (95% interval, paired, 96 images)")
    assert lines[5].startswith("evit@0.6, settings of evit, preset digits: ")
    assert all(len(line) <= 80 for line in lines)
    model = tr.load("run/last.safetensors")
    assert model.cost().gmacs <= 0.6 * tr.gmacs(model.base)
    assert "run/state.pt exists" in run(*words).refusal
    assert run(*words, "--resume").stdout == first.stdout


def test_dry_run(run: Run) -> None:
    result = run("finetune", "-s", "dynamicvit", "--preset", "paper", "--dry-run", "--lr", 0.5,
                 "-o", "run")  # fmt: skip
    assert result.exit_code == 0, result.output
    for words in ("lr 0.5", "backbone_frozen 5", "GMACs per image"):
        assert words in result.stdout
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--set optimizer=adamant", "adamant"),
        ("--set auto_augment=nonsense", "nonsense"),
        ("--batch-size 2000", "one batch of 2000"),
        ("--limit 20", "one batch of 96"),
        ("--device abacus", "abacus"),
        ("--data nowhere", "nowhere"),
        ("-o mine.txt", "is a file"),
        ("-o old", "Pass --overwrite to replace it, --resume to continue the run"),
        ("-o old --resume", "training checkpoint"),
        ("--class-map none.json", "cannot read the class map none.json"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(run: Run, words: str, told: str) -> None:
    Path("old").mkdir()
    for name in ("mine.txt", "old/state.pt"):
        Path(name).write_text("mine")
    line = ["finetune", "-s", "evit", "--epochs", 1, "--no-progress", *words.split()]
    line += [] if "-o" in line else ["-o", "run"]
    first = run(*line, "--dry-run").refusal
    assert told in first
    assert run(*line).refusal == first
    assert not list(Path().rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        ("", "digits"),
        ("--model cifar10_vit --data digits", "digits"),
        ("--model cifar10_vit --data images", "cifar10"),
        ("--preset paper --batch-size 10", "paper"),
    ],
)
def test_the_preset_is_recognised(run: Run, words: str, preset: str) -> None:
    for split, name in itertools.product(("train", "val"), CIFAR10_CLASSES):
        folder = Path("images", split, name)
        folder.mkdir(parents=True)
        for number in range(13):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    result = run("finetune", "-s", "evit", "-o", "run", "--dry-run", *words.split())
    assert result.exit_code == 0, result.output
    assert f"settings of evit, preset {preset}" in result.stdout
