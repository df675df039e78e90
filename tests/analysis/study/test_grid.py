"""Grids from end to end, on the embedded model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study import facts
from tokenred.analysis.study.errors import StoreError
from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.store import Store
from tokenred.analysis.study.worker import Runner
from tokenred.core.errors import ConfigError, ScheduleError, UnknownNameError


def test_public_names() -> None:
    assert tr.analysis.Grid is Grid
    assert tr.analysis.Store is Store
    assert "speed" in tr.analysis.list_metrics()


def test_a_grid_of_bases_budgets_and_parts(make_grid: MakeGrid, store: Store) -> None:
    grid = make_grid(
        {"base": ["gtp", "tome", "evit"], "budget": [0.85, 0.65]},
        cells=[{"base": "gtp", "scorer": tr.scorers.DiagAttn("mean"), "alpha": (0.1,) * 8}],
    )
    frame = grid.run(store, progress=False).frame
    assert len(grid) == len(frame) == 7
    assert (frame["status"] == "done").all()
    assert (frame["gmacs"][:6] <= 0.0643 * frame["budget"][:6]).all()
    assert frame["method"].tolist() == ["gtp", "gtp", "tome", "tome", "evit", "evit", "gtp"]
    assert frame["strategy"].tolist()[1] == "gtp@0.65"
    assert frame["scorer"].tolist()[6] == "DiagAttn(aggregate='mean')"
    assert frame["alpha"].tolist()[6] == (0.1,) * 8


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
    monkeypatch.setattr(facts, "load_base", never)
    monkeypatch.setattr(facts, "open_data", never)
    monkeypatch.setattr("tokenred.analysis.measure.intervals.paired_difference", never)
    monkeypatch.setattr(Store, "write", never)
    assert grid().run(path, progress=False).records == first
    assert "difference_low" in first[0]


def test_the_second_start_is_quick_since_it_imports_little(
    make_grid: MakeGrid, tmp_path: Path
) -> None:
    """Models, images, statistics and frames take seconds to import, and are not needed."""
    path = tmp_path / "a.db"
    make_grid({"alpha": [0.1, 0.2]}, against="dense").run(path, progress=False)
    program = f"""
import sys
from tokenred.analysis import Grid
axes = {{"alpha": [0.1, 0.2]}}
grid = Grid("gtp:P=6", axes, model="digits", data="digits", limit=10, against="dense")
print(grid.run({str(path)!r}, progress=False))
print(sorted({{"timm", "scipy", "pandas", "matplotlib", "ray"}} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "2 cells" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"


def test_an_edited_scorer_is_computed_anew(make_grid: MakeGrid, store: Store) -> None:
    def define(sign: float) -> None:
        @tr.register_scorer("Mine", overwrite=True)
        class Mine(tr.Scorer):
            def __call__(self, state: Any, attention: Any, by: float = sign) -> Any:
                return by * state.image.norm(dim=-1)

    def run() -> list[Any]:
        grid = make_grid({"scorer": ["Mine", "DiagAttn"]}, limit=100, base="gtp:P=7")
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
    top1 = {r["fingerprint"]: r["metrics"]["top1"] for r in store.rows()}
    assert top1[one[0]] != top1[two[0]]


def test_nothing_runs_where_a_cell_cannot(make_grid: MakeGrid, tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="cell 1, gtp:P=20"):
        make_grid({"P": [4, 20]}, base="gtp").run(tmp_path / "a.db", progress=False)
    with Store(tmp_path / "a.db") as store:
        assert len(store) == 0


def test_a_cell_that_raises_does_not_stop_the_others(make_grid: MakeGrid, store: Store) -> None:
    def picky(model: Any, data: Any, context: Any) -> dict[str, float]:
        if model.strategy.fuser.alpha == 0.2:
            raise ValueError("not this one")
        return {"fine": 1.0}

    study = make_grid({"alpha": [0.1, 0.2, 0.3]}, metrics=[picky]).run(store, progress=False)
    assert [row["status"] for row in study.records] == ["done", "failed", "done"]
    (bad,) = study.failed()
    assert bad["error"] == "ValueError: not this one"
    assert "in picky" in bad["traceback"]


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


def test_stores_that_cannot_take_results(
    make_grid: MakeGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a newer version, or read-only: told before anything runs, and nothing is changed."""

    def never(*_: object) -> None:
        raise AssertionError("a cell ran")

    monkeypatch.setattr(Runner, "__call__", never)
    newer = tmp_path / "newer.db"
    with Store(newer) as store:
        (version,) = store._connection.execute("PRAGMA user_version").fetchone()
        store._connection.execute(f"PRAGMA user_version = {version + 1}")
    before = newer.read_bytes()
    with pytest.raises(StoreError, match="newer"):
        make_grid().run(newer, progress=False)
    assert newer.read_bytes() == before
    old = tmp_path / "old.db"
    Store(old).close()
    monkeypatch.setattr("tokenred.analysis.study.connection.os.access", lambda place, mode: False)
    with pytest.raises(StoreError, match="can only be read"):
        make_grid().run(old, progress=False)


def test_grids_share_results(make_grid: MakeGrid, store: Store) -> None:
    make_grid({"alpha": [0.1], "M": [4, 8]}).run(store, progress=False)
    make_grid({"theta": [1.0, 0.9], "M": [8]}).run(store, progress=False)
    assert len(store) == 3
    shared = store.frame().set_index("strategy").loc["gtp:P=6,alpha=0.1,M=8"]
    assert (shared["alpha"], shared["M"], shared["theta"]) == (0.1, 8, 1.0)


def test_a_model_in_memory(make_grid: MakeGrid, digits: nn.Module, store: Store) -> None:
    """It is the same as the named one: the same key, nothing computed again."""
    make_grid().run(store, progress=False)
    make_grid(model=digits).run(store, progress=False)
    assert len(store) == 1
    dataset = tr.data.open_dataset("digits")
    (row,) = make_grid(model=digits, data=dataset).run(store, progress=False).records
    assert row["status"] == "done"
    assert row["model"] == "digits_vit"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"engine": "rey"}, UnknownNameError),
        ({"engine": 3}, ConfigError),
        ({"workers": 0}, ConfigError),
        ({"threads": 0}, ConfigError),
        ({"retries": -1}, ConfigError),
        ({"address": "auto"}, ConfigError),
        ({"level": 1.0}, ConfigError),
    ],
)
def test_refused_before_anything_is_made(
    make_grid: MakeGrid, tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make_grid().run(tmp_path / "a.db", progress=False, **options)
    assert not list(tmp_path.iterdir())
