"""The benchmark of studies, with small numbers in the place of the large ones."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks.conftest import FOLDER


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module("study")
    for name in {"study", "reporting", *(path.stem for path in FOLDER.glob("study_*.py"))} - before:
        sys.modules.pop(name, None)


def test_sections_into_a_file_that_keeps_the_others(
    study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study.json"
    assert study.main(["writer", "--rows", "400", "--out", str(out)]) == 0
    first = json.loads(out.read_text())
    assert set(first) == {"writer"}
    assert first["writer"]["command"] == "python benchmarks/study.py writer"
    rates = [values["rows_a_second"] for values in first["writer"]["figures"].values()]
    assert len(rates) == 4
    assert min(rates) > 0
    engines = ["engines", "--limit", "2", "--engine", "serial", "--out", str(out),
               "--csv", str(tmp_path / "cells.csv"),
               "--stores", str(tmp_path / "kept")]  # fmt: skip
    assert study.main(engines) == 0
    assert [path.name for path in (tmp_path / "kept").glob("*.db")] == ["serial.db"]
    second = json.loads(out.read_text())
    assert second["writer"] == first["writer"]
    assert second["engines"]["command"] == "python benchmarks/study.py engines --limit 2"
    assert list(second["engines"]["figures"]) == ["digits, 2 images, serial"]
    lines = (tmp_path / "cells.csv").read_text().splitlines()
    assert len(lines) == 61
    assert lines[0].startswith("alpha,M,theta,P,strategy,gmacs,top1")
    assert "60 cells" not in capsys.readouterr().err


@pytest.mark.slow
def test_overhead_and_memory_are_figures(study: ModuleType) -> None:
    options = study.arguments().parse_args(
        ["--cells", "1000", "--cell-seconds", "0.01", "--overhead-cells", "2"]
    )
    grid = study.SECTIONS["overhead"](options)["grid"]
    assert grid["cells"] == 2
    assert 0 < grid["overhead"] < 1
    assert 0 < grid["forward_seconds_a_cell"] < grid["seconds"]


def test_commands_name_no_folders(study: ModuleType) -> None:
    parser = study.arguments()
    options = parser.parse_args(
        ["--model", "/my/vit.safetensors", "--data", "cifar10:/my/data/test.zip", "--limit", "9"]
    )
    assert study.command("engines", options, parser) == (
        "python benchmarks/study.py engines --model vit.safetensors --data cifar10:test.zip "
        "--limit 9"
    )
    assert study.command("plan", options, parser) == "python benchmarks/study.py plan"


@pytest.mark.parametrize(
    ("given", "message"),
    [(["nothing"], "unknown section nothing"), (["writer", "--readme"], "needs --out")],
)
def test_refused(
    study: ModuleType, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        study.main(given)
    assert message in capsys.readouterr().err


MACHINE = {"processor": "CPU", "cores": 2, "python": "3", "torch": "2"}


def result(figures: object, command: str = "run") -> dict[str, object]:
    return {"figures": figures, "command": command, "machine": MACHINE, "when": "2026-01-01"}


def test_goals_are_judged(study: ModuleType) -> None:
    start = {"seconds": 2.0, "cpu_seconds": 1.9, "starts": 3, "store_unchanged": True}
    table = study.table
    good = {
        "plan": result({"10,000 cells": {"seconds": 9.0, "cpu_seconds": 1.5,
                                          "memory_growth_mb": 2.0}}),
        "second": result({"second start": start}),
        "engines": result({"digits, serial": {"cell_seconds": 1.0},
                           "digits, ray": {"cell_seconds": 1.5, "largest_difference": 1e-9,
                                           "predictions_that_differ": 0}}, "one; two"),
    }  # fmt: skip
    text = table(good)
    assert text.count("✓") == 4
    assert "✗" not in text
    assert "| `one`, `two` |" in text
    assert "1.5 s of CPU time" in text
    assert "| digits, ray | 1.5 |" in text
    assert text.endswith("CPU, 2 cores, Python 3, torch 2, 2026-01-01.")
    bad = {
        "plan": result({"10,000 cells": {"seconds": 9.0, "cpu_seconds": 5.5,
                                          "memory_growth_mb": 200.0}}),
        "second": result({"second start": {**start, "store_unchanged": False}}),
        "engines": result({"digits, ray": {"cell_seconds": 1.5, "largest_difference": 1e-3,
                                           "predictions_that_differ": 4}}),
        "ray": result({"8 workers": {"cells": 10, "rows": 9, "lost": 1, "rows_a_second": 5,
                                       "writes": 2}}),
        "writer": result({"one": {"rows_a_second": 1999}, "two": {"rows_a_second": 9000}}),
        "overhead": result({"grid": {"overhead": 0.04, "cpu_overhead": 0.04, "cells": 4,
                                     "forward_cpu_a_cell": 5.0}}),
    }  # fmt: skip
    text = table(bad)
    assert "✓" not in text
    assert text.count("✗") == 7
