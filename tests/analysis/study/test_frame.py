"""Rows as a tidy frame."""

from __future__ import annotations

import json
from typing import Any

from tests.analysis.study.stubs import row
from tokenred.analysis.study.frame import extra_columns, record, tidy


def stored(**columns: Any) -> dict[str, Any]:
    """A row as the store gives it back."""
    found = dict(row("k").columns)
    for name in ("axes", "metrics", "machine"):
        found[name] = json.loads(found[name])
    return found | columns


def test_a_row_becomes_flat() -> None:
    found = record(stored(image_limit=7, git_commit="abc"))
    assert next(iter(found)) == "alpha"
    assert (found["alpha"], found["gmacs"], found["torch"]) == (0.1, 1.5, "2")
    assert (found["limit"], found["commit"]) == (7, "abc")
    assert not {"axes", "metrics", "machine", "image_limit", "git_commit"} & set(found)


def test_axes_of_the_cell_go_before_those_of_the_row() -> None:
    found = record(stored(seed=3), {"M": 4, "seed": 3, "alpha": [0.1, [0.2]]})
    assert list(found)[:3] == ["M", "seed", "alpha"]
    assert found["alpha"] == (0.1, (0.2,))
    # A name that is an axis is there once.
    assert list(found).count("seed") == 1
    assert record(stored(), {"gmacs": 9})["gmacs"] == 9


def test_columns_in_order() -> None:
    one = record(stored(metrics={"top1": 90.0, "luck": 7.0, "gmacs": 1.0}))
    two = record(stored(metrics={"speed": 3.0}))
    assert extra_columns([one, two], ["alpha"]) == ["luck", "speed"]
    frame = tidy([one, two], ["alpha"])
    names = list(frame.columns)
    assert names[:2] == ["alpha", "strategy"]
    assert names.index("top1") < names.index("luck") < names.index("speed") < names.index("status")
    assert names[-1] == "key"
    assert frame["luck"].isna().tolist() == [False, True]


def test_a_setting_on_an_axis_comes_first() -> None:
    frame = tidy([record(stored(seed=3), {"seed": 3})], ["seed"])
    assert next(iter(frame.columns)) == "seed"
    assert list(frame.columns).count("seed") == 1


def test_nothing() -> None:
    assert len(tidy([], ["alpha"])) == 0
