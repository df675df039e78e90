"""Two processes with torchrun's variables, over gloo, give what one process gives."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from tokenred.analysis import evaluate
from tokenred.analysis.measure.sharding import Shards
from tokenred.core.errors import ConfigError

SCRIPT = Path(__file__).with_name("sharded_run.py")
# How many images each case counts.
COUNTS = {"dense": 37, "fast": 37, "few": 3, "unreadable": 15, "loader": 7, "loader limit": 5}
TORN = ["0/0.png", "0/1.png", "1/0.png", "1/1.png", "7/1.png"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes wrote."""
    folder = tmp_path_factory.mktemp("sharded")
    for name, count in (("images", 2), ("fewer", 1)):
        for label in range(10):
            (folder / name / str(label)).mkdir(parents=True)
            for number in range(count):
                shade = (7 * label + 40 * number) % 256
                path = folder / name / str(label) / f"{number}.png"
                Image.new("RGB", (32, 32), (shade, 255 - shade, shade)).save(path)
    # A batch of only unreadable ones, and some in batches of both processes.
    for name in TORN:
        (folder / "images" / name).write_bytes(b"torn")
    announced = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in announced}
    # tokenred as this process has it, installed or not; and no threads that a fork would lose.
    path = os.pathsep.join(filter(None, sys.path))
    environment |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


@pytest.mark.parametrize("case", COUNTS)
def test_two_processes_give_what_one_gives(ranks: list[dict[str, Any]], case: str) -> None:
    found, expected = ranks[0]["several"][case], ranks[0]["single"][case]
    assert found | {"seconds": 0} == expected | {"seconds": 0}
    # Every rank returns the same, down to the time.
    assert ranks[1]["several"][case] == found
    assert len(set(found["index"])) == len(found["index"]) == COUNTS[case]
    assert [name for name, _ in found["skipped"]] == (TORN if case == "unreadable" else [])
    if case == "loader":
        # Image i has its one logit at class i − 1; of the zeros the first class leads.
        assert found["prediction"] == [6, 0, 1, 2, 3, 4, 5]


def test_the_group_comes_from_the_environment(ranks: list[dict[str, Any]]) -> None:
    assert [(rank["before"], rank["again"]) for rank in ranks] == [(False, 2)] * 2


@pytest.mark.parametrize(
    ("case", "first", "second"),
    [
        ("data", "DataError: expected the same data in all 2 processes, got images, 20 images", ""),
        ("limit", "ConfigError: expected the same limit in all 2 processes, got 10 in process", ""),
        ("weights", "ConfigError: expected the same weights in all 2 processes", ""),
        ("strategy", "ConfigError: expected the same models in all 2 processes", ""),
        ("order", "DataError: expected the same batches in all 2 processes", ""),
        ("sampler", "ConfigError: expected a loader over all images", ""),
        # Where one fails, none waits.
        ("missing", "DataError: process 1 of 2 failed: exp", "DataError: expected a dataset at no"),
        ("nan", "InputError: process 1 of 2 failed: expected f", "InputError: expected finite"),
        ("alone", "none", ""),
    ],
)
def test_processes_that_differ_or_fail(
    ranks: list[dict[str, Any]], case: str, first: str, second: str
) -> None:
    assert ranks[0]["errors"][case].startswith(first)
    assert ranks[1]["errors"][case].startswith(second or first)


def test_one_process_cannot_be_several(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="torchrun"):
        evaluate(digits, "digits", limit=4, shard=True, progress=False)


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda")
    assert Shards(1, 2).device(cuda) == torch.device("cuda:1")
    assert Shards(1, 2).device(torch.device("cuda:0")) == torch.device("cuda:0")
    assert Shards(0, 1).device(cuda) == cuda
    assert Shards(1, 2).device(None) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Shards(1, 2).device(cuda) == torch.device("cuda:0")
