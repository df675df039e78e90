"""Tasks as bytes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import tokenred as tr
from tests.analysis.study.stubs import SETTING, StubRunner, tasks
from tokenred.analysis.study.cell import Task
from tokenred.analysis.study.payload import pack, pack_tasks
from tokenred.core.provenance import is_installed


def test_plain_tasks() -> None:
    given = [Task("a", tr.strategy("gtp", P=3), SETTING), *tasks(2)]
    assert pickle.loads(pack_tasks(given)) == given
    assert pickle.loads(pack(StubRunner(raises=("a",)))) == StubRunner(raises=("a",))


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of the user's, as beside a script."""
    path = tmp_path / "my_parts.py"
    path.write_text(
        textwrap.dedent(
            """
            import tokenred as tr
            FACTOR = 3.0

            def helper(x):
                return x * FACTOR

            class Own(tr.Scorer):
                power: float = 1.0

                def __call__(self, state, attention):
                    return helper(state.image.norm(dim=-1))
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    module = importlib.import_module("my_parts")
    yield module  # type: ignore[misc]
    sys.modules.pop("my_parts", None)
    is_installed.cache_clear()


def test_own_parts_are_read_where_their_module_is_not(
    own_module: types.ModuleType, tmp_path: Path
) -> None:
    own_module.FACTOR = 4.0  # edited after the import, as in a notebook
    packed = pack_tasks([Task("a", tr.strategy("gtp", scorer=own_module.Own(2.0)), SETTING)])
    (tmp_path / "packed").write_bytes(packed)
    program = textwrap.dedent(
        """
        import pickle, sys
        (task,) = pickle.loads(open(sys.argv[1], "rb").read())
        scorer = task.strategy.scorer
        assert "my_parts" not in sys.modules
        print(scorer, type(scorer).__call__.__globals__["helper"](1.0))
        """
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "packed")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == "Own(power=2.0) 4.0"


def test_what_cannot_travel_by_value_goes_by_name(own_module: types.ModuleType) -> None:
    import threading

    own_module.Own.lock = threading.Lock()  # no copy can be made of this
    packed = pack_tasks([Task("a", tr.Strategy(own_module.Own()), SETTING)])
    (task,) = pickle.loads(packed)
    assert type(task.strategy.scorer) is own_module.Own
    import cloudpickle

    assert not cloudpickle.list_registry_pickle_by_value()


def test_what_is_installed(own_module: types.ModuleType) -> None:
    assert is_installed("tokenred.strategies.strategy")
    assert is_installed("torch")
    assert is_installed("json")
    assert is_installed("sys")
    assert not is_installed("my_parts")
    assert not is_installed("__main__")
