"""The same grid, with parts of a notebook, gives the same rows on every engine.

Ray is tried in ``engines/test_ray.py``, on the cluster that is there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tokenred as tr
from tests.analysis.study.conftest import MakeGrid
from tokenred.analysis.study.study import Study


def notebook() -> tuple[type[tr.Scorer], Any]:
    """A scorer and a metric as a notebook defines them: in ``__main__``."""

    class Mine(tr.Scorer):
        power: float = 1.0

        def __call__(self, state: Any, attention: Any) -> Any:
            return state.image.norm(dim=-1) ** self.power

    def entropy(model: Any, data: Any, context: Any) -> dict[str, float]:
        image, _, index = data[0]
        p = model(image[None]).softmax(dim=-1)
        return {"entropy": float(-(p * p.log()).sum()), "first": index}

    Mine.__module__ = entropy.__module__ = "__main__"
    return Mine, entropy


def check_same(study: Study, expected: Study) -> None:
    """All cells done, with the same rows and the same predictions."""
    for own, other in zip(study.records, expected.records, strict=True):
        assert own["status"] == other["status"] == "done", own["traceback"] + other["traceback"]
        for column in ("gmacs", "overhead_gmacs", "top1", "top5", "entropy"):
            assert own[column] == pytest.approx(other[column], abs=1e-6)
        for column in ("key", "tokens", "strategy", "fingerprint", "weights", "images", "first"):
            assert own[column] == other[column]
        one, two = study.store.predictions(own["key"]), expected.store.predictions(other["key"])
        assert one.index.tolist() == two.index.tolist()
        assert one.rank.tolist() == two.rank.tolist()


@pytest.fixture(scope="module")
def engines() -> Any:
    with ThreadPoolExecutor(2) as executor:
        yield {"executor": executor, "processes": "processes"}


@pytest.mark.parametrize("name", ["executor", "processes"])
def test_as_in_process(make_grid: MakeGrid, engines: dict[str, Any], name: str) -> None:
    scorer, entropy = notebook()
    grid = make_grid(
        {"scorer": ["MixedAttn", scorer(2.0)], "alpha": [0.1, 0.4], "theta": [0.8]},
        base="gtp:P=7", metrics=["accuracy", entropy], limit=30, batch_size=16,
    )  # fmt: skip
    expected = grid.run(progress=False)
    study = grid.run(engine=engines[name], workers=1, threads=1, progress=False)
    check_same(study, expected)
    assert {row["engine"] for row in study.records} == {name}


def test_threads_leave_the_classes_of_a_notebook_alone(make_grid: MakeGrid) -> None:
    """Read back from bytes here, their methods would no longer see a helper that is edited."""
    scorer, _ = notebook()
    before = vars(scorer)["__call__"]
    with ThreadPoolExecutor(2) as executor:
        study = make_grid({"scorer": [scorer(2.0)]}, limit=2).run(engine=executor, progress=False)
    assert [row["status"] for row in study.records] == ["done"]
    assert vars(scorer)["__call__"] is before
