from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tokenred.core.errors import CheckpointError, ConfigError
from tokenred.training.state import check_same_run, read_state, weights_digest, write_state


def test_comes_back(tmp_path: Path) -> None:
    state = {"rows": [{"loss": 0.5}], "model": {"a": torch.arange(3)}, "ema": None}
    read = read_state(write_state(tmp_path / "state.pt", state))
    assert read["rows"] == state["rows"]
    assert torch.equal(read["model"]["a"], torch.arange(3))


def test_a_failed_write_leaves_the_older_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_state(tmp_path / "state.pt", {"turn": 1})

    def half(state: object, place: Path) -> None:
        place.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="disk full"):
            write_state(path, {"turn": 2})
    assert read_state(path)["turn"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with pytest.raises(CheckpointError, match="checkpoint of a training"):
        read_state(path)
    path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="checkpoint of a training"):
        read_state(path)
    torch.save({"a": 1}, path)
    with pytest.raises(CheckpointError, match="not a training's"):
        read_state(path)
    torch.save({"a": print}, path)
    with pytest.raises(CheckpointError):
        read_state(path)


def test_the_digest_is_of_the_values() -> None:
    layer = nn.Linear(2, 2)
    before = weights_digest(layer)
    assert weights_digest(layer) == before
    with torch.no_grad():
        layer.bias[0] += 1e-3
    assert weights_digest(layer) != before


def test_names_what_differs() -> None:
    check_same_run({"a": 1}, {"a": 1}, Path("x/state.pt"))
    with pytest.raises(ConfigError, match="lr 1 there, 2 now"):
        check_same_run({"lr": 1, "b": 0}, {"lr": 2, "b": 0}, Path("x/state.pt"))
