"""A small grid on the embedded model, and a store."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenred.analysis.study.grid import Grid
from tokenred.analysis.study.store import Store

MakeGrid = Callable[..., Grid]


@pytest.fixture
def make_grid() -> MakeGrid:
    def make(axes: Any = None, **options: Any) -> Grid:
        told = {"base": "gtp:P=6", "model": "digits", "data": "digits", "limit": 10}
        return Grid(axes=axes, **{**told, **options})

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "runs.db") as made:
        yield made
