"""Needs are values: equal when they ask the same, refused when they make no sense."""

from __future__ import annotations

import pytest

from tokenred.attention import Need
from tokenred.core.errors import ConfigError


def test_equal_needs_are_one() -> None:
    needs = [Need.diagonal(), Need.diagonal("max"), Need.diagonal("mean"), Need.received()]
    assert len(set(needs)) == 3
    assert Need.received() == Need.received("max", exclude_self=True)
    assert Need.received() != Need.received(exclude_self=False)
    assert Need.row("cls") != Need.row(0)
    assert Need.row() != Need.logits_row()


@pytest.mark.parametrize(
    "make",
    [
        Need.diagonal,
        Need.received,
        Need.map,
        lambda a: Need.row(0, a),
        lambda a: Need.logits_row(0, a),
    ],
)
def test_heads_are_aggregated_by_max_or_mean(make: object) -> None:
    for aggregate in ("max", "mean"):
        assert make(aggregate).aggregate == aggregate  # type: ignore[operator]
    with pytest.raises(ConfigError, match="'max' or 'mean' over heads, got 'sum'"):
        make("sum")  # type: ignore[operator]


def test_keys_and_values_are_not_aggregated() -> None:
    assert Need.keys() == Need("keys")
    assert Need.values().aggregate == ""
