"""accelerate: two training processes on the CPU, as it or ``torchrun`` starts them, and bf16."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tokenred as tr
from tests.training.conftest import digits, small, tiny, train
from tokenred.training import Finetuned

pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
ROOT = Path(__file__).parents[2]

ONE_OF_TWO = """
import sys, warnings
import torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
from tests.training.test_processes import PLAIN, run
run(sys.argv[1] + "/two", "dynamicvit", **PLAIN)
"""
# Without an adaptive step, which blows up the last bits of gradients near 0. In the first epoch
# nothing is removed, so predictors have no gradient.
PLAIN = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.0, "mixup": 0.0}


def run(output: str | Path, name: str, **changes: Any) -> Finetuned:
    settings = small(name, **{"epochs": 1, "batch_size": 8, "ema": 0.5, **changes})
    few = {"data": digits("train", 24), "validation": digits("test", 21)}
    return train(output, name, settings=settings, **few)


@pytest.mark.slow  # that they share the batches is tried in test_augment.py
def test_two_processes_are_one(tmp_path: Path) -> None:
    alone = run(tmp_path / "one", "dynamicvit", **PLAIN).rows[-1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in ("0", "1"):
        where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
                 "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        command = [sys.executable, "-c", ONE_OF_TWO, str(tmp_path)]
        processes.append(
            subprocess.Popen(
                command, env=os.environ | where, cwd=ROOT, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()

    one, two = (tr.load(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    start = tiny().state_dict()
    moved = 0.0
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-4, atol=1e-6)
        if name in start:
            moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-3
    names, row = (line.split(",") for line in (tmp_path / "two/log.csv").read_text().splitlines())
    logged = dict(zip(names, map(float, row), strict=True))
    assert logged["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    # 21 images are not shared evenly, and each counts once.
    assert logged["top1"] == alone["top1"]


def test_bf16_with_a_bounded_gradient(tmp_path: Path) -> None:
    half, full = (
        run(tmp_path / amp, "idlevit", amp=amp, clip_grad=0.5).rows[0] for amp in ("bf16", "no")
    )
    assert half["loss"] == pytest.approx(full["loss"], rel=0.05)
    assert half["loss"] != full["loss"]
