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
from tokenred.analysis.measure.sharding import Shards, shards
from tokenred.core.errors import ConfigError, DataError

SCRIPT = Path(__file__).with_name("sharded_run.py")
CASES = ("limit", "few", "unreadable", "dense", "fast", "loader", "loader limit")


def _images(root: Path, per_class: int) -> None:
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for number in range(per_class):
            shade = (7 * label + 40 * number) % 256
            Image.new("RGB", (32, 32), (shade, 255 - shade, shade)).save(
                root / str(label) / f"{number}.png"
            )


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes wrote."""
    folder = tmp_path_factory.mktemp("sharded")
    _images(folder / "images", 2)
    _images(folder / "fewer", 1)
    # Five unreadable ones: a batch of only such, and some in batches of both processes.
    for name in ("0/0", "0/1", "1/0", "1/1", "7/1"):
        (folder / "images" / f"{name}.png").write_bytes(b"torn")
    announced = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in announced}
    # tokenred as this process has it, installed or not; and no threads that a fork would lose.
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


def _without_time(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "seconds"}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_what_one_gives(ranks: list[dict[str, Any]], case: str) -> None:
    expected = ranks[0]["single"][case]
    assert _without_time(ranks[0]["several"][case]) == _without_time(expected)
    # Every rank returns the same, down to the time.
    assert ranks[1]["several"][case] == ranks[0]["several"][case]


def test_the_cases_are_what_they_claim(ranks: list[dict[str, Any]]) -> None:
    found = ranks[0]["several"]
    counts = {case: len(found[case]["index"]) for case in CASES}
    assert counts == {
        "limit": 37, "few": 3, "unreadable": 15, "dense": 51, "fast": 51,
        "loader": 7, "loader limit": 5,
    }  # fmt: skip
    for case in CASES:
        assert len(set(found[case]["index"])) == counts[case]
    names = [name for name, _ in found["unreadable"]["skipped"]]
    assert names == ["0/0.png", "0/1.png", "1/0.png", "1/1.png", "7/1.png"]
    # Image i has its one logit at class i − 1; of the zeros the first class leads.
    assert found["loader"]["prediction"] == [6, 0, 1, 2, 3, 4, 5]
    assert found["loader"]["index"] == [0, 1, 2, 3, 4, 5, 6]


def test_the_group_comes_from_the_environment(ranks: list[dict[str, Any]]) -> None:
    assert [rank["before"] for rank in ranks] == [False, False]
    assert [rank["again"] for rank in ranks] == [2, 2]


@pytest.mark.parametrize(
    ("case", "both"),
    [
        ("data", "DataError: expected the same data in all 2 processes, got images, 20 images"),
        ("limit", "ConfigError: expected the same limit in all 2 processes, got 10 in process 0"),
        ("weights", "ConfigError: expected the same weights in all 2 processes"),
        ("strategy", "ConfigError: expected the same models in all 2 processes"),
        ("size", "ConfigError: expected the same models in all 2 processes"),
        ("order", "DataError: expected the same batches in all 2 processes"),
        ("sampler", "ConfigError: expected a loader over all images"),
    ],
)
def test_processes_that_differ_are_refused(
    ranks: list[dict[str, Any]], case: str, both: str
) -> None:
    for rank in ranks:
        assert rank["errors"][case].startswith(both)


@pytest.mark.parametrize(
    ("case", "own", "other"),
    [
        ("missing", "DataError: expected a dataset at no", "DataError: process 1 of 2 failed: exp"),
        ("nan", "InputError: expected finite", "InputError: process 1 of 2 failed: expected fin"),
    ],
)
def test_where_one_fails_none_waits(
    ranks: list[dict[str, Any]], case: str, own: str, other: str
) -> None:
    assert ranks[1]["errors"][case].startswith(own)
    assert ranks[0]["errors"][case].startswith(other)


def test_a_process_may_go_alone(ranks: list[dict[str, Any]]) -> None:
    assert [rank["errors"]["alone"] for rank in ranks] == ["none", "none"]


def test_one_process_needs_no_others(digits: nn.Module) -> None:
    with shards() as team:
        assert (team.rank, team.count) == (0, 1)
        assert team.gather(lambda: 3) == [3]
        assert team.local(lambda: 4) == 4
        team.agree(lambda: {"data": 1})
        with pytest.raises(DataError, match="as it is"):
            team.gather(lambda: (_ for _ in ()).throw(DataError("as it is")))
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
