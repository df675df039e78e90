"""The script for a GPU: what it can do without one, and the published program beside it."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch

import tokenred as tr
from tests.benchmarks.conftest import FOLDER
from tokenred.strategies.specs import parse_spec

TESTS = FOLDER.parent / "tests"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module("gpu")
    for name in {"gpu", "gpu_stages", "gpu_journal", "published", "engines"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def stages(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two stages in the place of those that need a GPU; what they measured."""
    measured = []

    def figures(name: str, count: int):  # type: ignore[no-untyped-def]
        def measure(at: int) -> dict[str, float]:
            measured.append(f"{name} {at}")
            if at == 1:
                raise ValueError("no\nsuch kernel")
            return {"ms": 1 / 3}

        for at in range(count):
            yield {"at": at}, lambda at=at: measure(at)

    made = (
        gpu.Stage("one", "One", lambda: figures("one", 3), 1),
        gpu.Stage("two", "Two", lambda: figures("two", 1), 1, shows=lambda row: False),
    )
    monkeypatch.setattr(gpu, "STAGES", made)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return measured


def test_every_figure_is_kept_and_measured_once(
    gpu: ModuleType, stages: list[str], tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path), "--until", str(time.time() + 60)]
    assert gpu.main([*out, "--only", "one"]) == 0
    assert stages == ["one 0", "one 1", "one 2"]
    rows = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert [row["at"] for row in rows] == [0, 1, 2]
    assert rows[0]["ms"] == 0.3333
    assert rows[1]["error"] == "ValueError: no such kernel"
    with (tmp_path / "figures.jsonl").open("a") as file:
        file.write('{"stage": "tw')  # cut off
    stages.clear()
    assert gpu.main(out) == 0
    assert stages == ["two 0"]
    text = gpu.summary(gpu.Journal(tmp_path).rows, gpu.STAGES)
    assert "3 of 3 figures, 1 with an error." in text
    assert text.count("| 0.3333 |") == 2


def test_no_stage_takes_more_than_its_share(
    gpu: ModuleType, stages: list[str], tmp_path: Path
) -> None:
    assert gpu.main(["--out", str(tmp_path), "--until", str(time.time() - 1)]) == 0
    assert stages == []


def test_a_gpu_that_fails_is_left_to_the_next_process(
    gpu: ModuleType, stages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    out = ["--out", str(tmp_path), "--until", str(time.time() + 60)]
    assert gpu.main(out) == 3
    assert stages == ["one 0"]
    assert gpu.main(out) == 3
    assert stages == ["one 0", "one 1"]


WORKER = f"""
import os, sys, time
sys.path.insert(0, {str(FOLDER)!r})
import gpu_journal as gpu
from pathlib import Path
journal = gpu.Journal(Path(sys.argv[1]))
for name, limit in (("dies", 60), ("hangs", 0.2), ("works", 60)):
    if not journal.has("stage", {{"name": name}}):
        journal.begin("stage", {{"name": name}}, limit)
        if name == "dies":
            os._exit(7)
        if name == "hangs":
            time.sleep(60)
        journal.add({{"stage": "stage", "name": name, "ms": 1.0}})
"""


def test_a_figure_that_kills_or_blocks_its_process_costs_no_other(
    gpu: ModuleType, tmp_path: Path
) -> None:
    journal = gpu.Journal(tmp_path)
    gpu.supervise(journal, [sys.executable, "-c", WORKER, str(tmp_path)], time.time() + 120)
    found = {row["name"]: row for row in gpu.Journal(tmp_path).rows}
    assert found["dies"]["error"] == "its process ended with 7"
    assert found["hangs"]["error"] == "no answer in time"
    assert found["works"]["ms"] == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])
    assert "PyTorch finds no GPU here" in capsys.readouterr().err


def test_the_stages_can_be_read(gpu: ModuleType) -> None:
    keys = [json.dumps([s.name, key]) for s in gpu.STAGES for key, _ in s.figures()]
    assert len(keys) == len(set(keys)) > 100
    texts = {key["strategy"] for s in gpu.STAGES for key, _ in s.figures() if "strategy" in key}
    assert [parse_spec(text).label for text in texts - {"dense"}] == list(texts - {"dense"})


def test_no_test_that_needs_a_gpu_is_left_out(gpu: ModuleType) -> None:
    asks = {
        str(path.relative_to(TESTS.parent))
        for path in TESTS.rglob("test_*.py")
        if path != Path(__file__)
        and "not torch.cuda.is_available()" in path.read_text(encoding="utf-8")
    }
    assert asks == set(sys.modules["gpu_stages"].TESTS)


@pytest.mark.parametrize("r", [8, 30])
def test_the_published_program_is_tome(gpu: ModuleType, r: int) -> None:
    published = importlib.import_module("published")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=96, depth=3, num_classes=5, qk_norm=True
    )
    model = model.eval().double()
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = tr.wrap(model, tr.strategy("tome", r=r))(images)
        torch.testing.assert_close(published.PublishedToMe(model, r)(images), expected)
