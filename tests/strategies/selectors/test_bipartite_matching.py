"""ToMe's matching against plain Python, written from the description of the method."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.state import TokenState
from tokenred.strategies import BipartiteMatching
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def cosine(u: list[float], v: list[float]) -> float:
    lengths = math.sqrt(sum(x * x for x in u)) * math.sqrt(sum(x * x for x in v))
    return sum(x * y for x, y in zip(u, v, strict=True)) / lengths if lengths else 0.0


def matched(
    keys: list[list[list[float]]], p: int, r: int
) -> tuple[list[int], list[int], dict[int, int]]:
    """One image: kept places, merged places (best first), and where each merged one goes.

    Places of the sequence; ``keys`` by head, token and dimension.
    """
    heads, total = len(keys), len(keys[0])
    metric = [
        [sum(head[i][x] for head in keys) / heads for x in range(len(keys[0][0]))]
        for i in range(total)
    ]
    sources = [i for i in range(0, total, 2) if i >= p]
    targets = [i for i in range(1, total, 2) if i >= p]
    pairs = []
    for source in sources:
        best = max(targets, key=lambda t, s=source: (cosine(metric[s], metric[t]), -t))
        pairs.append((cosine(metric[source], metric[best]), source, best))
    pairs.sort(key=lambda pair: (-pair[0], pair[1]))
    partner = {source: target for _, source, target in pairs[:r]}
    merged = [source for _, source, _ in pairs[:r]]
    return [s for s in sources if s not in partner] + targets, merged, partner


@QUICK
@given(draw.smooth_samples(), st.data())
def test_it_is_the_matching_as_described(sample: Sample, data: st.DataObject) -> None:
    state, p = sample.state, sample.state.num_prefix
    selector, n = BipartiteMatching(), sample.state.num_tokens
    if n < 2:
        assert selector.limit(n) == 0
        return
    count = data.draw(st.integers(1, selector.limit(n)))
    chosen = selector(state, sample.attention(selector.requires), count)
    for image in range(state.x.shape[0]):
        keep, drop, partner = matched(sample.qkv.k[image].tolist(), p, count)
        assert (chosen.keep[image] + p).tolist() == keep
        assert (chosen.drop[image] + p).tolist() == drop
        assert (chosen.partner[image] + p).tolist() == [partner[source] for source in drop]


def run(metric: list[list[float]], p: int, count: int) -> tuple[list[int], list[int], list[int]]:
    """One image and one head; image places of what stays, goes and receives."""
    keys = torch.tensor([[metric]])
    n = len(metric) - p
    state = TokenState(torch.zeros(1, p + n, 1), torch.arange(n)[None], p, (1, n))
    chosen = BipartiteMatching()(state, AttentionStats({AttentionStat.keys(): keys}), count)
    assert chosen.partner is not None
    return chosen.keep[0].tolist(), chosen.drop[0].tolist(), chosen.partner[0].tolist()


@pytest.mark.parametrize("p", [0, 1, 2, 3, 5])
def test_prefix_tokens_neither_merge_nor_receive(p: int) -> None:
    # All prefix tokens look exactly like every image token; none may be touched all the same.
    n = 6
    keep, drop, partner = run([[1.0, 0.0]] * (p + n), p, 3)
    assert sorted(keep + drop) == list(range(n))
    assert len(drop) == 3
    assert all((place + p) % 2 == 0 for place in drop)
    assert all((place + p) % 2 == 1 and place >= 0 for place in partner)
    # Ties: the first sources, all to the first target.
    assert drop == sorted(drop)
    assert set(partner) == {1 - p % 2}


def test_several_may_join_one() -> None:
    metric = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2], [0.0, -1.0]]
    keep, drop, partner = run(metric, 0, 3)
    assert (keep, drop, partner) == ([1, 3, 5], [0, 2, 4], [1, 1, 1])
