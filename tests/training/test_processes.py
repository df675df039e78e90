"""Two training processes on the CPU, as ``accelerate launch`` or ``torchrun`` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tokenred as tr
from tokenred.data import ImageDataset, open_dataset
from tokenred.models import load_model
from tokenred.training import finetune, settings_for

pytest.importorskip("accelerate")

_ONE_OF_TWO = """
import sys, warnings
import torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
import test_processes as here
here.train(sys.argv[1] + "/evit", "evit", **here.PLAIN)
here.train(sys.argv[1] + "/dynamicvit", "dynamicvit", epochs=2, keep_warmup=(1, 2))
"""
# Without an adaptive step, which blows up the last bits of gradients near 0.
PLAIN = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.0, "mixup": 0.0, "keep_warmup": None}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def few(split: str, count: int) -> ImageDataset:
    data = open_dataset("digits", split=split)
    data.labels = data.labels[:count]
    return data


def train(output: str | Path, name: str, **changes: Any) -> dict[str, float]:
    torch.manual_seed(0)
    settings = settings_for(name, "digits").replace(
        **{"epochs": 1, "batch_size": 8, "ema": 0.5, **changes}
    )
    result = finetune(
        load_model("digits"), tr.strategy(name), few("train", 24), validation=few("test", 21),
        output=output, settings=settings, device="cpu", progress=False,
    )  # fmt: skip
    return result.rows[-1]


def test_two_processes_are_one(tmp_path: Path) -> None:
    alone = train(tmp_path / "one", "evit", **PLAIN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in ("0", "1"):
        where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
                 "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", _ONE_OF_TWO, str(tmp_path), str(Path(__file__).parent)],
                env=os.environ | where,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()

    one, two = (tr.load(tmp_path / name / "last.safetensors") for name in ("one", "evit"))
    start = load_model("digits").state_dict()
    moved = 0.0
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-4, atol=1e-6)
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-3
    (row,) = (tmp_path / "evit" / "log.csv").read_text().splitlines()[1:]
    assert float(row.split(",")[1]) == pytest.approx(alone["loss"], rel=1e-4)
    # 21 images are not shared evenly, and each counts once.
    assert float(row.split(",")[-1]) == alone["top1"]
    # Predictors have no gradient in the first epoch, in which nothing goes.
    lines = (tmp_path / "dynamicvit" / "log.csv").read_text().splitlines()
    assert len(lines) == 3
    assert tr.load(tmp_path / "dynamicvit" / "last.safetensors").strategy == tr.strategy(
        "dynamicvit"
    )
