"""Needs are values: equal when they ask the same, refused when they make no sense."""

from __future__ import annotations

import pytest

from tokenred.attention import AttentionStat
from tokenred.core.errors import ConfigError


def test_equal_needs_are_one() -> None:
    requires = [
        AttentionStat.diagonal(),
        AttentionStat.diagonal("max"),
        AttentionStat.diagonal("mean"),
        AttentionStat.column_sum(),
    ]
    assert len(set(requires)) == 3
    assert AttentionStat.column_sum() == AttentionStat.column_sum("max", exclude_self=True)
    assert AttentionStat.column_sum() != AttentionStat.column_sum(exclude_self=False)
    assert AttentionStat.row("cls") != AttentionStat.row(0)
    assert AttentionStat.row() != AttentionStat.logits_row()


@pytest.mark.parametrize(
    "make",
    [
        AttentionStat.diagonal,
        AttentionStat.column_sum,
        AttentionStat.map,
        lambda a: AttentionStat.row(0, a),
        lambda a: AttentionStat.logits_row(0, a),
    ],
)
def test_heads_are_aggregated_by_max_or_mean(make: object) -> None:
    for aggregate in ("max", "mean"):
        assert make(aggregate).aggregate == aggregate  # type: ignore[operator]
    with pytest.raises(ConfigError, match="'max' or 'mean' over heads, got 'sum'"):
        make("sum")  # type: ignore[operator]


def test_keys_and_values_are_not_aggregated() -> None:
    assert AttentionStat.keys() == AttentionStat("keys")
    assert AttentionStat.values().aggregate == ""
