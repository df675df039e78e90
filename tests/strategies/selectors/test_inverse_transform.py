"""ATS's sampling: by hand in plain Python, ties, padding, levels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError
from tokenred.core.state import TokenState
from tokenred.strategies.selectors import InverseTransform
from tokenred.strategies.selectors.inverse_transform import sampled

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def by_hand(score: list[float], levels: int) -> set[int]:
    """METHODS, line by line, for one image without padding."""
    if len(score) == 1:
        return {0}
    if sum(score) == 0:
        score = [1.0] * len(score)
    share = [s / sum(score) for s in score]
    order = sorted(range(len(share)), key=lambda i: (share[i], i))
    sums = [sum(share[i] for i in order[: k + 1]) for k in range(len(order))]
    scaled = [(s - sums[0]) / (sums[-1] - sums[0]) for s in sums]
    low = min(s for s in scaled if s > 0)
    taken = set()
    for level in range(levels):
        wanted = 1 - (1 - low) * (level / (levels - 1) if levels > 1 else 0)
        distance = [abs(wanted - s) for s in scaled]
        taken.add(order[distance.index(min(distance))])
    return taken


@QUICK
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=25), st.integers(1, 30), st.integers(0, 4)
)
def test_it_is_the_paper_by_hand(numbers: list[int], levels: int, padding: int) -> None:
    # Uneven shares, so that no level lies half-way between two sums.
    score = torch.tensor(numbers, dtype=torch.float64) ** 1.37
    expected = by_hand(score.tolist(), levels)
    places = torch.randperm(len(numbers) + padding, generator=torch.Generator().manual_seed(1))
    places = places[: len(numbers)].sort().values
    padded = torch.rand(1, len(numbers) + padding, dtype=torch.float64)
    alive = torch.zeros(padded.shape, dtype=torch.bool)
    padded[0, places], alive[0, places] = score, True
    chosen = sampled(padded, alive, levels)
    got = chosen[0, places].nonzero().flatten().tolist()
    assert got == sorted(expected)
    assert chosen.sum() == len(got)
    assert 1 <= len(got) <= min(levels, len(numbers))


@pytest.mark.parametrize(
    ("score", "chosen"),
    [
        ([0, 0, 5, 0], [2]),
        ([3, 3, 3, 3], [1, 2, 3]),  # equal ones in their order
        ([0, 0, 0, 0], [1, 2, 3]),  # nothing is significant: all are equal
        ([0], [0]),
    ],
)
def test_ties_and_nothing_significant(score: list[float], chosen: list[int]) -> None:
    given_scores = torch.tensor([score], dtype=torch.float64)
    alive = torch.ones_like(given_scores, dtype=torch.bool)
    assert sampled(given_scores, alive, 8)[0].nonzero().flatten().tolist() == chosen


def state_of(n: int, layer: int = 4, p: int = 1) -> TokenState:
    return TokenState(torch.zeros(1, p + n, 4), torch.arange(n)[None], p, (1, n), layer=layer)


def stats(row: Tensor, values: Tensor) -> AttentionStats:
    return AttentionStats(dict(zip(InverseTransform().requires, (row, values), strict=True)))


def test_the_most_that_stay() -> None:
    row = torch.rand(1, 30, generator=torch.Generator().manual_seed(0))
    values = torch.ones(1, 2, 31, 2)
    counts = [
        InverseTransform(most)(state_of(30), stats(row, values), 0).keep.shape[1]
        for most in (None, 20, 8, 3, 1)
    ]
    assert counts == sorted(counts, reverse=True)
    assert all(count <= most for count, most in zip(counts, (30, 20, 8, 3, 1), strict=True))
    each = InverseTransform((9, 4), (4, 6))
    assert [each.adaptive(layer, 12) for layer in (3, 4, 5, 6)] == [False, True, False, True]
    for layer, most in ((4, 9), (6, 4)):
        assert each(state_of(30, layer), stats(row, values), 0).keep.shape[1] <= most


def test_the_host_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    for name in ("tolist", "item", "__int__", "__bool__", "__index__"):
        method = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *given: object, of: object = method) -> object:
            waits.append(str(of))
            return of(self, *given)  # type: ignore[operator]

        monkeypatch.setattr(torch.Tensor, name, counted)
    row, values = torch.rand(1, 30), torch.rand(1, 3, 31, 8)
    InverseTransform()(state_of(30), stats(row, values), 0)
    assert len(waits) == 1


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="2 max_tokens for 0 layers"):
        InverseTransform((5, 2))
