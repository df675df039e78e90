from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tokenred.core.errors import MissingExtraError
from tokenred.training.logs import Log


def test_each_epoch_once_and_later_columns_too(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write([])
    assert not log.path.exists()
    rows = [{"epoch": 0.0, "loss": 2.0}, {"epoch": 1.0, "loss": 1.0, "token_cut": 0.5}]
    log.write(rows[:1])
    log.write(rows)
    assert log.path.read_text().splitlines() == ["epoch,loss,token_cut", "0,2.0,", "1,1.0,0.5"]
    log.close()


def test_tensorboard_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"tokenred\[train\]"):
        Log(tmp_path, tensorboard=True)


def test_tensorboard_gets_each_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows: list[dict[str, float]] = []
    log = Log(tmp_path, tensorboard=True)
    for epoch in range(3):
        rows.append({"epoch": float(epoch), "loss": 2.0 - epoch, "top1": epoch / 4})
        log.write(rows)
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("top1")] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert [e.value for e in events.Scalars("loss")] == [2.0, 1.0, 0.0]
