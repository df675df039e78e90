"""A sweep keeps what it has, measures nothing twice, and goes on after a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tests.analysis.sweep_rows import make_row
from tokenred.analysis import Store, Sweep, sweep
from tokenred.analysis.study.database import StoreError
from tokenred.core.errors import ConfigError, DataError, OutputExistsError, UnknownNameError

QUICK: dict[str, Any] = {"pairs": 2, "warmup": 0, "progress": False}
SPECS = ["topk", "tome:r=2"]


@pytest.fixture(scope="module")
def figures() -> tr.analysis.Benchmark:
    model = tr.models.load_model("digits")
    return tr.benchmark(tr.wrap(model, "topk"), batch_size=1, pairs=2, progress=False)


@pytest.fixture
def measured(figures: tr.analysis.Benchmark, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that were timed, in order; one figure for all, so that it is quick."""
    done: list[str] = []

    def once(models: Any, **options: Any) -> Any:
        (model,) = models.values()
        done.append(f"{type(model.strategy.fuser).__name__} {options['batch_size']}")
        return figures

    monkeypatch.setattr(BENCHMARK, once)
    return done


BENCHMARK = "tokenred.analysis.measure.speed.benchmark"


def test_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    found = sweep("digits", ["gtp:P=4"], path, batch_sizes=(2,), image_sizes=(None, 64),
                  dtypes=("float32", "bfloat16"), threads=(1,), **QUICK)  # fmt: skip
    assert len(found.rows) == len(found.done) == 4
    assert [row["image_size"] for row in found.rows] == ["32x32"] * 2 + ["64x64"] * 2
    assert [row["tokens"] for row in found.rows] == [64, 64, 256, 256]
    assert [row["dtype"] for row in found.rows] == ["float32", "bfloat16"] * 2
    row = found.rows[0]
    assert row["gmacs"] == pytest.approx(
        tr.gmacs(tr.wrap(tr.models.load_model("digits"), tr.strategy("gtp", P=4)))
    )
    expected = {"key", "status", "model", "strategy", "method", "batch_size", "speedup_low",
                "realised", "overhead_gmacs", "processor", "threads", "torch", "seed", "when",
                "seconds", "pairs"}  # fmt: skip
    assert expected <= set(row)
    assert (row["pairs"], row["threads"], row["compile"]) == (2, 1, "false")
    assert Sweep.read(path).rows == found.rows
    with Store(path, readonly=True) as store:
        assert len(store) == 4


def test_memory_and_split_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def peak(model: Any, strategy: Any = None, **options: Any) -> Any:
        asked.append((model, strategy))
        return tr.analysis.PeakMemory(5, None, 2, (3, 32, 32), "float32", "cpu", True)

    monkeypatch.setattr("tokenred.analysis.measure.memory.peak_memory", peak)
    found = sweep("digits", SPECS, batch_sizes=(2,), memory=True, split=True, **QUICK)
    # The dense model's once.
    assert [model for model, _ in asked] == ["digits"] * 3
    assert [strategy is None for _, strategy in asked] == [False, True, False]
    for row in found.done:
        assert (row["peak_bytes"], row["dense_peak_bytes"]) == (5, 5)
        assert "resident_bytes" not in row
        assert 0 <= row["split_choosing"] < 1
    assert "peak MiB" in str(found)
    assert "where the time goes" in str(found)


def test_nothing_is_measured_twice(tmp_path: Path, measured: list[str]) -> None:
    path = tmp_path / "r.db"
    first = sweep("digits", SPECS, path, batch_sizes=(1, 2), **QUICK)
    assert measured == ["Prune 1", "Merge 1", "Prune 2", "Merge 2"]
    again = sweep("digits", [*SPECS, "evit"], path, batch_sizes=(2, 1), **QUICK)
    assert measured[4:] == ["FusedToken 2", "FusedToken 1"]
    assert {row["key"] for row in first.rows} < {row["key"] for row in again.rows}
    assert len(Sweep.read(path).rows) == 6
    sweep("digits", SPECS, path, batch_sizes=(1,), overwrite=True, **QUICK)
    assert len(Sweep.read(path).rows) == 2


def test_other_settings_are_other_cells(tmp_path: Path, measured: list[str]) -> None:
    path = tmp_path / "r.db"
    for change in ({}, {"pairs": 3}, {"seed": 1}, {"split": True}, {"threads": (1,)}):
        sweep("digits", ["topk"], path, batch_sizes=(1,), **QUICK | change)
    # The threads asked for are those of the tests anyway.
    assert len(measured) == (4 if torch.get_num_threads() == 1 else 5)


def test_a_killed_run_loses_nothing(
    tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.db"

    def kill(models: Any, **options: Any) -> Any:
        if len(measured) == 2:
            raise KeyboardInterrupt
        return benchmark(models, **options)

    from tokenred.analysis.measure.speed import benchmark

    with monkeypatch.context() as patch:
        patch.setattr(BENCHMARK, kill)
        with pytest.raises(KeyboardInterrupt):
            sweep("digits", SPECS, path, batch_sizes=(1, 2), **QUICK)
    assert len(Sweep.read(path).rows) == 2
    found = sweep("digits", SPECS, path, batch_sizes=(1, 2), **QUICK)
    assert measured[2:] == ["Prune 2", "Merge 2"]
    assert len(found.done) == len(Sweep.read(path).rows) == 4


def test_it_goes_on_after_a_failure(
    tmp_path: Path,
    measured: list[str],
    figures: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "r.db"
    errors = {1: RuntimeError("a kernel\nbroke"), 2: torch.OutOfMemoryError("CUDA: no room")}

    def fail(models: Any, **options: Any) -> Any:
        if options["batch_size"] in errors:
            raise errors[options["batch_size"]]
        measured.append("Prune 3")
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(BENCHMARK, fail)
        found = sweep("digits", ["topk"], path, batch_sizes=(1, 2, 3), **QUICK)
    assert [row["status"] for row in found.rows] == ["failed", "out of memory", "done"]
    assert found.rows[0]["error"] == "RuntimeError: a kernel broke"
    assert len(found.failures) == 2
    assert "Out of memory: digits, topk, batch 2" in str(found)
    # A failure is a result as well, until one wants to try again.
    assert len(sweep("digits", ["topk"], path, batch_sizes=(1, 2, 3), **QUICK).failures) == 2
    assert measured == ["Prune 3"]
    again = sweep("digits", ["topk"], path, batch_sizes=(1, 2, 3), retry=True, **QUICK)
    assert measured[1:] == ["Prune 1", "Prune 2"]
    assert not again.failures
    assert not Sweep.read(path).failures


def test_a_dry_run(tmp_path: Path, measured: list[str]) -> None:
    path = tmp_path / "r.db"
    sweep("digits", ["topk"], path, batch_sizes=(1,), **QUICK)
    found = sweep("digits", SPECS, path, batch_sizes=(1,), image_sizes=(None, 33), dry_run=True,
                  **QUICK)  # fmt: skip
    assert measured == ["Prune 1"]
    assert found.todo == ("digits, tome:r=2, batch 1, float32, cpu, images 32x32",)
    assert len(found.rows) == 1
    assert len(found.refused) == 2
    text = str(found)
    assert "To do: digits, tome:r=2, batch 1" in text
    assert "and 1 more: expected an image size in multiples of the patch" in text


def test_the_compiler_starts_afresh_with_each_model(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: seen.append(len(measured)))
    settings = QUICK | {"batch_sizes": (1,), "image_sizes": (None, 64)}
    sweep("digits", SPECS, **settings)
    assert seen == []
    sweep("digits", SPECS, compile=(True,), **settings)
    assert seen == [6]


def test_parts_of_ones_own_are_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnSwept(tr.Scorer):
        def __call__(self, state: tr.TokenState, attention: object) -> Tensor:
            return state.image.norm(dim=-1)

    mine = tr.strategy("topk").replace(scorer=OwnSwept())
    found = sweep("digits", [mine], batch_sizes=(2,), memory=True, **QUICK)
    (row,) = found.done
    assert row["peak_in_own_process"] is False
    assert row["peak_bytes"] > 0


def test_refused_before_any_work(tmp_path: Path, measured: list[str]) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(StoreError, match="no store"):
        sweep("digits", ["topk"], mine, **QUICK)
    with pytest.raises(DataError, match="make it"):
        sweep("digits", ["topk"], tmp_path / "no" / "r.db", **QUICK)
    with pytest.raises(ConfigError, match="no cell of the sweep can run; the first, digits, gtp:P"):
        sweep("digits", ["gtp:P=30"], tmp_path / "r.db", overwrite=True, **QUICK)
    with pytest.raises(ConfigError, match="pairs"):
        sweep("digits", ["topk"], pairs=1)
    assert measured == []
    assert mine.read_text() == "mine"


def test_settings_are_left_as_they_were() -> None:
    threads = torch.get_num_threads()
    sweep("digits", ["topk"], batch_sizes=(1,), threads=(threads + 1,), **QUICK)
    assert torch.get_num_threads() == threads


def test_settings_that_cannot_be_are_named(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    settings = QUICK | {"batch_sizes": (1,), "dry_run": True}
    found = sweep("digits", ["topk"], devices=("cpu", "no-such"), compile=(False, True), **settings)
    assert list(found.todo) == ["digits, topk, batch 1, float32, cpu, images 32x32"]
    reasons = dict(found.refused)
    assert "C++ compiler" in reasons["digits, topk, batch 1, float32, cpu, compiled"]
    assert any("expected a device of this machine" in why for why in reasons.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_sizes": (0,)}, "batch_size"),
        ({"batch_sizes": ()}, "at least one value"),
        ({"batch_sizes": (1, 1)}, "once"),
        ({"image_sizes": ((1, 2, 3),)}, "image size"),
        ({"dtypes": ("int8",)}, "dtype"),
        ({"compile": ("fast",)}, "compile"),
        ({"threads": (0,)}, "threads"),
        ({"strategies": "topk"}, "a list of strategies"),
        ({"strategies": ["topk", "topk"]}, "once"),
    ],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(**{"models": "digits", "strategies": ["topk"], **QUICK, **change})


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown model"):
        sweep("vit_tinny_patch16_224", ["topk"], **QUICK)
    with pytest.raises(UnknownNameError, match="nothing"):
        sweep("digits", ["nothing"], **QUICK)


def test_csv_frame_and_chart(tmp_path: Path) -> None:
    failed = make_row("b", batch_size=64, status="out of memory", error="no room")
    found = Sweep((make_row("a"), failed))
    path = found.to_csv(tmp_path / "r.csv")
    again = Sweep.read(path)
    assert again.rows[0]["speedup"] == pytest.approx(1.2)
    assert again.failures[0]["error"] == "no room"
    assert "speedup" not in again.failures[0]
    assert len(found.frame()) == 2
    assert found.plot(title="here").get_suptitle() == "here"
    with pytest.raises(OutputExistsError):
        found.to_csv(path)
    assert str(Sweep(())) == ""
