"""``docs/studies.md``: its code and its study file run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tokenred.analysis.study import metrics
from tokenred.analysis.study.grid import Grid, read_study

TEXT = (Path(__file__).parents[3] / "docs" / "studies.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    return [block.replace("limit=100", "limit=10") for block in found]


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metrics, "_METRICS", dict(metrics._METRICS))
    space: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(blocks("python")):
        exec(compile(code, f"block {number}", "exec"), space)
    assert len(space["frame"]) == 7  # type: ignore[arg-type]
    assert "confidence" in metrics.list_metrics()


def test_study_file(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "study.toml"
    path.write_text(text)
    found = read_study(path)
    frame = Grid(**found.grid).dry_run()
    assert len(frame) == 25
    assert (frame["status"] == "to do").all()
    assert found.run == {"engine": "processes", "workers": 2}
