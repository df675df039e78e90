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
