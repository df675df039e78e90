"""Grids from end to end, on the embedded model."""

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tests.analysis.study.stubs import Scripted
from tokenred.analysis.measure.accuracy import evaluate
from tokenred.analysis.study.cell import EngineError, StudyInterruptedError
from tokenred.analysis.study.database import StoreError
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.worker import Runner
from tokenred.core.errors import UntrainedPartWarning


def test_a_grid_of_bases_budgets_and_parts(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid(
        {"base": ["gtp", "evit"], "budget": [0.65]},
        cells=[{"base": "gtp", "scorer": tr.scorers.DiagAttn("mean"), "alpha": (0.1,) * 8}],
    )
    frame = grid.run(store, progress=False).frame
    assert len(grid) == len(frame) == 3
    assert (frame["status"] == "done").all()
    assert (frame["gmacs"][:2] <= 0.0643 * frame["budget"][:2]).all()
    assert frame["method"].tolist() == ["gtp", "evit", "gtp"]
    assert frame["strategy"].tolist()[0] == "gtp@0.65"
    assert frame["scorer"].tolist()[2] == "DiagAttn(aggregate=mean)"
    assert frame["alpha"].tolist()[2] == (0.1,) * 8


def test_the_second_start_computes_and_loads_nothing(
    make_grid: MakeGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grid() -> Grid:
        return make_grid({"alpha": [0.1, 0.2]}, against="dense")

    path = tmp_path / "a.db"
    first = grid().run(path, progress=False).records

    def never(*_: object, **__: object) -> None:
        raise AssertionError("was done again")

    monkeypatch.setattr(Runner, "__call__", never)
    monkeypatch.setattr(ModelRef, "load", never)
    monkeypatch.setattr(DataRef, "open", never)
    monkeypatch.setattr("tokenred.analysis.measure.intervals.paired_difference", never)
    monkeypatch.setattr(Store, "write", never)
    assert grid().run(path, progress=False).records == first
    assert "difference_low" in first[0]


def test_an_edited_scorer_is_computed_anew(make_grid: MakeGrid, store: Store) -> None:
    def define(sign: float) -> None:
        @tr.register_scorer("Mine", overwrite=True)
        class Mine(tr.Scorer):
            def __call__(self, state: Any, attention: Any, by: float = sign) -> Any:
                return by * state.image.norm(dim=-1)

    def run() -> list[Any]:
        grid = make_grid({"scorer": ["Mine", "DiagAttn"]}, limit=50, base="gtp:P=7")
        return [r["fingerprint"] for r in grid.run(store, progress=False).records]

    define(1.0)
    one = run()
    define(1.0)
    assert run() == one
    assert len(store) == 2
    define(-1.0)
    two = run()
    assert two[0] != one[0]
    assert two[1] == one[1]
    assert len(store) == 3
    top1 = {r["fingerprint"]: r["top1"] for r in store.rows()}
    assert top1[one[0]] != top1[two[0]]


def test_two_grids_on_one_store_at_once(make_grid: MakeGrid, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    small, large = make_grid({"alpha": [0.1]}), make_grid({"alpha": [0.1, 0.2]})
    seen: list[str] = []

    def meanwhile(model: Any, data: Any, context: Any) -> dict[str, float]:
        with pytest.raises(StoreError, match="another grid is writing"):
            small.run(path, progress=False)
        seen.append("refused")
        return {}

    make_grid({"alpha": [0.3]}, metrics=[meanwhile]).run(path, progress=False)
    assert seen == ["refused"]
    small.run(path, progress=False)
    large.run(path, progress=False)
    # A finished grid only reads, also while another writes.
    with Store(path) as other, other.writing():
        assert len(large.run(path, progress=False).records) == 2
    with Store(path) as store:
        assert len(store) == 3


def test_grids_share_results(make_grid: MakeGrid, store: Store) -> None:
    make_grid({"alpha": [0.1], "M": [4, 8]}).run(store, progress=False)
    make_grid({"theta": [1.0, 0.9], "M": [8]}).run(store, progress=False)
    assert len(store) == 3
    shared = store.frame().set_index("strategy").loc["gtp:P=6,alpha=0.1,M=8"]
    assert (shared["alpha"], shared["M"], shared["theta"]) == (0.1, 8, 1.0)


def test_is_what_evaluate_says(make_grid: MakeGrid, digits: nn.Module, store: Store) -> None:
    """Named or in memory: the same key, nothing computed again, and the model as it was."""
    before = copy.deepcopy(digits.state_dict())
    make_grid(seed=4).run(store, progress=False)
    (found,) = make_grid(model=digits, seed=4).run(store, progress=False).records
    assert len(store) == 1
    own = make_grid({"dtype": ["float64", "amp:bfloat16"]}, model=digits)
    assert not own.run(store, progress=False).failed()
    assert all(torch.equal(v, before[k]) for k, v in digits.state_dict().items())
    reduced = tr.wrap(digits, tr.strategy("gtp", P=6))
    expected = evaluate(reduced, "digits", limit=10, seed=4, progress=False)
    predictions = store.predictions(found["key"])
    assert found["top1"] == expected.top1
    assert predictions.index.tolist() == expected.index.tolist()
    assert predictions.rank.tolist() == expected.rank.tolist()
    assert found["gmacs"] == tr.gmacs(reduced)
    assert found["tokens"] == tuple(64 - 6 * i for i in range(9))
    dataset = tr.data.open_dataset("digits")
    (row,) = make_grid(model=digits, data=dataset).run(store, progress=False).records
    assert (row["status"], row["model"]) == ("done", "digits")


def test_models_and_images_stay_loaded(
    make_grid: MakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    for kind, name in ((ModelRef, "load"), (DataRef, "open")):
        real = getattr(kind, name)
        monkeypatch.setattr(
            kind, name, lambda *a, real=real, name=name: (loaded.append(name), real(*a))[1]
        )
    make_grid({"alpha": [0.1, 0.2, 0.3], "limit": [5, 10]}).run(progress=False)
    # Once to plan; then the images once for each limit.
    assert loaded == ["load", "open", "open", "open"]


def test_a_reduced_model_brings_its_learned_parts(
    make_grid: MakeGrid, digits: nn.Module, tmp_path: Path
) -> None:
    with pytest.warns(UntrainedPartWarning):
        reduced = tr.wrap(digits, "dynamicvit")
    saved = tr.save(reduced, tmp_path / "a.safetensors")
    grid = make_grid({"model": [reduced, str(saved)]}, base="dynamicvit")
    one, two = grid.run(progress=False).records
    assert (one["status"], two["status"]) == ("done", "done")
    assert (one["top1"], one["weights"]) == (two["top1"], two["weights"])


def test_settings_of_a_speed_grid(make_grid: MakeGrid) -> None:
    axes = {"batch_size": [2], "image_size": [None, 40], "threads": [1]}
    metrics = [{"name": "speed", "pairs": 2, "warmup": 0}, {"name": "split", "repeats": 2}]
    study = make_grid(axes, metrics=metrics, data=None, against="dense").run(progress=False)
    assert not study.failed(), study.failed()[0]["traceback"]
    one, two = study.records
    assert (one["image_size"], two["image_size"]) == (None, (40, 40))
    assert one["gmacs"] < two["gmacs"]
    for row in (one, two):
        assert (row["batch_size"], row["pairs"], row["threads"]) == (2, 2, 1)
        assert row["split_mlp"] > 0
    assert all(r["speedup"] > 0 for r in study.references)


# ---------------------------------------------------------------- rows, stops and retries

AXES = {"alpha": [0.1, 0.2], "M": [4, 8]}


def test_a_row_says_what_produced_it(
    make_grid: MakeGrid, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"alpha": [0.2], "dtype": ["float64"]}
    make_grid(axes, name="mine", seed=3).run(store, engine=Scripted(), progress=False)
    (row,) = store.rows()
    assert json.loads(row["config"])["fuser"] == {"name": "propagate", "alpha": 0.2}
    assert row["fingerprint"] == tr.strategy("gtp", P=6, alpha=0.2).fingerprint()
    expected = {
        "study": "mine", "strategy": "gtp:P=6,alpha=0.2", "method": "gtp", "model": "digits",
        "data": "digits", "limit": 10, "seed": 3, "dtype": "float64", "status": "done",
        "engine": "scripted", "axes": {"alpha": 0.2, "dtype": "float64"}, "attempts": 1,
        "gmacs": 1.0, "torch": "2", "batch_size": 64,
        "image_size": "32x32", "compile": "false",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["created"].startswith("20")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    assert row["commit"].removesuffix("+") == commit.stdout.strip()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (row,) = make_grid().run(engine=Scripted(), progress=False).records
    assert row["commit"] == ""


def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(
    make_grid: MakeGrid, store: Store
) -> None:
    grid = make_grid(AXES)
    engine = Scripted(after=2, then=KeyboardInterrupt())
    with pytest.raises(StudyInterruptedError, match=r"2 of 4 results .*same grid") as caught:
        grid.run(store, engine=engine, progress=False)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert len(store) == 2
    assert engine.closed
    with store.writing():  # the lock is free
        pass
    again = Scripted(after=1, then=KeyboardInterrupt())
    with pytest.raises(StudyInterruptedError, match="3 of 4 results"):
        grid.run(store, engine=again, progress=False)
    rest = Scripted()
    assert len(grid.run(store, engine=rest, progress=False).records) == 4
    assert len(rest.keys) == 1
    assert not set(rest.keys) & set(engine.keys)


def test_a_full_disk_stops_the_engine(
    make_grid: MakeGrid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Store.write, []

    def write(self: Store, rows: Any) -> None:
        calls.append(rows)
        if len(calls) == 3:
            raise StoreError("cannot write (database or disk is full): free some space")
        real(self, rows)

    engine = Scripted()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", write)
        with pytest.raises(StoreError, match="disk is full"):
            make_grid(AXES).run(store, engine=engine, progress=False)
    assert engine.closed
    assert len(store) == 2
    assert len(make_grid(AXES).run(store, engine=Scripted(), progress=False).records) == 4


def test_an_engine_that_forgets_cells(make_grid: MakeGrid, store: Store) -> None:
    class Forgets(Scripted):
        def run(self, *_: Any) -> Any:
            yield []

    with pytest.raises(EngineError, match="without outcomes for 4 cells"):
        make_grid(AXES).run(store, engine=Forgets(), progress=False)
    assert len(store) == 0


def test_what_is_left_out_is_noted(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid({"P": [4, *range(20, 25)], "image_size": [None, 25]}, invalid="skip")
    engine = Scripted()
    records = grid.run(store, engine=engine, progress=False).records
    assert len(engine.keys) == 1
    assert [row["status"] for row in records] == ["done"] + ["skipped"] * 11
    assert records[1]["error"].startswith("ScheduleError: ")
    grid.run(store, engine=engine, progress=False)
    assert len(engine.keys) == 1
