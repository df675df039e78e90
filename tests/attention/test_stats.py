"""Statistics against their definitions, entry by entry in NumPy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention import QKV, AttentionStat, AttentionStats
from tokenred.attention.stats import stats_of_map
from tokenred.core.errors import ConfigError, PartError
from tokenred.core.state import TokenState
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def tokens(p: int, cls_index: int | None) -> TokenState:
    index = torch.arange(2)[None]
    return TokenState(torch.zeros(1, p + 2, 1), index, p, (1, 2), cls_index=cls_index)


OVER = {"max": np.max, "mean": np.mean}
AGGREGATES = st.sampled_from(("max", "mean"))


@QUICK
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(1, 8),
    AGGREGATES,
    st.data(),
)
def test_statistics_of_a_map(
    b: int, h: int, p: int, n: int, aggregate: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    total = p + n
    attention = rng.random((b, h, total, total))
    requires = {
        "diagonal": AttentionStat.diagonal(aggregate),
        "with self": AttentionStat.column_sum(aggregate, exclude_self=False),
        "without self": AttentionStat.column_sum(aggregate),
        "map": AttentionStat.map(aggregate),
    }
    cls_index = data.draw(st.integers(0, p - 1)) if p else None
    if p:
        requires |= {
            "cls": AttentionStat.row("cls", aggregate),
            "last": AttentionStat.row(p - 1, aggregate),
        }
    found = stats_of_map(
        torch.from_numpy(attention), tuple(requires.values()), tokens(p, cls_index)
    )
    over = OVER[aggregate]
    for image, i in np.ndindex(b, n):
        maps, at = attention[image], p + i
        expected = {
            "diagonal": over([a[at, at] for a in maps]),
            "with self": over([sum(a[j, at] for j in range(total)) for a in maps]),
            "without self": over([sum(a[j, at] for j in range(total) if j != at) for a in maps]),
        }
        if p:
            expected |= {
                "cls": over([a[cls_index, at] for a in maps]),
                "last": over([a[p - 1, at] for a in maps]),
            }
        for name, value in expected.items():
            assert found[requires[name]].shape == (b, n)
            assert found[requires[name]][image, i].item() == pytest.approx(value)
    np.testing.assert_allclose(found[requires["map"]].numpy(), over(attention, axis=1))


@QUICK
@given(draw.samples(needs_cls=True, dtypes=(torch.float64,), flavours=("normal",)), AGGREGATES)
def test_statistics_without_a_map(sample: Sample, aggregate: str) -> None:
    qkv, state = sample.qkv, sample.state
    stat = AttentionStat.logits_row("cls", aggregate)
    found = qkv.stats((stat, AttentionStat.keys(), AttentionStat.values()), state)
    q, k = qkv.q.numpy(), qkv.k.numpy()
    row, keys = q[:, :, state.cls_index], k[:, :, state.num_prefix :]
    logits = np.einsum("bhd,bhid->bhi", row, keys) * qkv.scale
    np.testing.assert_allclose(found[stat].numpy(), OVER[aggregate](logits, axis=1), atol=1e-12)
    assert found[AttentionStat.keys()] is qkv.k
    assert found[AttentionStat.values()] is qkv.v


def test_self_is_taken_out_before_the_maximum_over_heads() -> None:
    """max(Σ − self) is not max(Σ) − max(self)."""
    heads = torch.tensor([[[[0.9, 0.1], [0.1, 0.9]], [[0.2, 0.8], [0.7, 0.3]]]])
    found = stats_of_map(heads, (AttentionStat.column_sum("max"),), tokens(0, None))
    assert found[AttentionStat.column_sum("max")].tolist() == [pytest.approx([0.7, 0.8])]


def test_a_statistic_that_was_not_declared_is_refused() -> None:
    stats = AttentionStats({AttentionStat.diagonal(): torch.zeros(1, 2)})
    with pytest.raises(PartError, match=r"column_sum.* was not computed .*diagonal.*Declare it"):
        stats[AttentionStat.column_sum()]
    with pytest.raises(PartError, match=r"computed: none.*before_block"):
        AttentionStats()[AttentionStat.keys()]


def test_rows_that_no_prefix_token_has_are_refused() -> None:
    x = torch.zeros(1, 1, 3, 3)
    with pytest.raises(ConfigError, match="needs the CLS row, but the model has no CLS token"):
        stats_of_map(x, (AttentionStat.row("cls"),), tokens(1, None))
    with pytest.raises(ConfigError, match="needs the CLS row, but the model has no CLS token"):
        QKV(x, x, x, 1.0).stats((AttentionStat.logits_row("cls"),), tokens(1, None))
    with pytest.raises(ConfigError, match="a prefix token below 2, got 2"):
        stats_of_map(torch.zeros(1, 1, 4, 4), (AttentionStat.row(2),), tokens(2, 0))
    for query in (-1, "CLS", "register", 1.0, True):
        for make in (AttentionStat.row, AttentionStat.logits_row):
            with pytest.raises(ConfigError, match="'cls' or the number of a prefix token"):
                make(query)


@pytest.mark.parametrize(
    "make", [AttentionStat.diagonal, AttentionStat.column_sum, AttentionStat.map]
)
def test_heads_are_aggregated_by_max_or_mean(make: Callable[[str], AttentionStat]) -> None:
    assert make("mean").aggregate == "mean"
    with pytest.raises(ConfigError, match="'max' or 'mean' over heads, got 'sum'"):
        make("sum")
