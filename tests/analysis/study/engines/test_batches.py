"""How many tasks go at once."""

from __future__ import annotations

from tokenred.analysis.study.engines.batches import BatchSize


def test_grows_for_short_cells_and_not_too_fast() -> None:
    size, seen = BatchSize(), []
    for _ in range(12):
        seen.append(size.size)
        size.learn(size.size, 0.001 * size.size)
    assert seen[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert max(seen) == 256


def test_is_one_for_long_cells() -> None:
    size = BatchSize()
    for _ in range(3):
        size.learn(size.size, 5.0 * size.size)
        assert size.size == 1
    size.learn(1, 0.0)
    assert size.size == 2


def test_shrinks_at_once() -> None:
    size = BatchSize()
    for _ in range(6):
        size.learn(size.size, 0.0)
    size.learn(64, 16.0)
    assert size.size == 4
