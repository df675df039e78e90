"""The best by score or place, the partners of the rest, and clusters against SciPy's."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor, nn

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.errors import ConfigError, PartError, UnknownNameError
from tokenred.core.info import ModelInfo
from tokenred.core.state import TokenState
from tokenred.strategies import CLSAttn, Merge, Random, TopScore
from tokenred.strategies.base import Scorer
from tokenred.strategies.selectors import BipartiteMatching, GridDrop, Partnered
from tokenred.strategies.selectors.grid_drop import dither_order
from tokenred.strategies.selectors.matching.agglomerative import clustered
from tokenred.testing import Sample, check_selector, draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=20, deadline=None, derandomize=True)
NOTHING = AttentionStats()

# ---------------------------------------------------------------- TopScore


class Given(Scorer):
    """Scores that the state carries."""

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return state.memory["score"]


def carrying(score: Tensor | None, b: int = 2, n: int = 5) -> TokenState:
    index = torch.arange(n).expand(b, n)
    return TokenState(torch.zeros(b, 1 + n, 1), index, 1, (1, n), memory={"score": score})


@QUICK
@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 9999), st.data())
def test_it_is_a_sort_by_score_and_place(
    n: int, levels: int, seed: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(0, levels, (2, n), generator=generator).float()
    count = data.draw(st.integers(0, n - 1))
    chosen = TopScore(Given())(carrying(score, n=n), NOTHING, count)
    for row, keep, drop in zip(
        score.tolist(), chosen.keep.tolist(), chosen.drop.tolist(), strict=True
    ):
        best = sorted(range(n), key=lambda i, row=row: (-row[i], i))
        assert (keep, drop) == (sorted(best[: n - count]), best[n - count :])


@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 1), (1, 5), (2,), None])
def test_a_score_of_the_wrong_shape_is_refused(shape: tuple[int, ...] | None) -> None:
    state = carrying(None if shape is None else torch.zeros(shape))
    message = r"Given must return .* \(2, 5\) .* not scored" + (".* a return" if not shape else "")
    with pytest.raises(PartError, match=message):
        TopScore(Given())(state, NOTHING, 1)


def test_it_is_what_its_scorer_is() -> None:
    assert TopScore("random") == TopScore(Random())
    assert TopScore(CLSAttn()).requires == CLSAttn().requires
    assert TopScore(CLSAttn()).traits == CLSAttn().traits
    with pytest.raises(UnknownNameError, match="Did you mean 'CLSAttn'"):
        TopScore("ClsAtn")
    with pytest.raises(PartError, match="expected a scorer"):
        TopScore(3)  # type: ignore[arg-type]
    info = model_info(8, (2, 2), num_prefix=0, cls_index=None)
    with pytest.raises(ConfigError, match="CLSAttn reads the attention of a CLS token"):
        TopScore("CLSAttn").check(info)


class Learned(Scorer):
    def build(self, info: ModelInfo) -> nn.Module:
        return Head(info.width)


class Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return self.linear(state.image)[..., 0]


def test_a_scorer_with_weights_becomes_a_submodule() -> None:
    built = TopScore(Learned()).built_for(model_info(1, (1, 5)))
    assert built.network is not None
    names = [name for name, _ in built.network.named_parameters()]
    assert names == ["scorer.linear.weight", "scorer.linear.bias"]
    assert built(carrying(None), NOTHING, 3).keep.tolist() == [[0, 1]] * 2


# ---------------------------------------------------------------- Partnered


class FirstFeature(Scorer):
    """A score that is below 0 for about half of the tokens."""

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return state.image[..., 0]


@QUICK
@given(draw.smooth_samples(), st.sampled_from(("importance", "size", "similarity")), st.data())
def test_partners_and_the_means_of_their_groups(
    sample: Sample, weights: str, data: st.DataObject
) -> None:
    state = sample.state
    count = data.draw(st.integers(0, state.num_tokens - 1))
    chosen = Partnered(FirstFeature(), weights, 0.5)(state, NOTHING, count)
    plain = TopScore(FirstFeature())(state, NOTHING, count)
    assert torch.equal(chosen.keep, plain.keep)
    assert torch.equal(chosen.drop, plain.drop)
    after = Merge()(state, chosen, None, NOTHING)
    for i, x in enumerate(state.image):
        keep, drop = chosen.keep[i], chosen.drop[i]
        cosine = nn.functional.cosine_similarity(x[drop][:, None], x[keep][None], dim=2)
        assert torch.equal(chosen.partner[i], keep[cosine.argmax(dim=1)])
        for slot, kept in enumerate(keep.tolist()):
            group = [kept, *drop[chosen.partner[i] == kept].tolist()]
            weight = x[group, 0].clamp_min(0)
            if weights == "size":
                weight = torch.ones(len(group)).double()
                weight = weight if state.size is None else state.image_size[i, group].double()
            elif weights == "similarity":
                like = nn.functional.cosine_similarity(x[group], x[kept][None], dim=1)
                weight = (like / 0.5).softmax(dim=0)
            # A group of which no token is important stays as its first.
            expected = x[kept] if weight.sum() == 0 else (weight / weight.sum()) @ x[group]
            torch.testing.assert_close(after.image[i, slot], expected)


def test_partnered_keeps_its_promises_and_takes_any_scorer() -> None:
    check_selector(Partnered("MixedAttn", "similarity"), max_examples=3)
    without = model_info(8, (2, 2), cls_index=None)
    assert Partnered().built_for(without).scorer.requires != Partnered().requires
    with pytest.raises(ConfigError, match="CLS token"):
        Partnered("CLSAttn").check(without)


# ---------------------------------------------------------------- GridDrop


def kept(grid: tuple[int, int], stay: int) -> list[tuple[int, int]]:
    n = grid[0] * grid[1]
    state = TokenState(torch.zeros(1, n + 1, 1), torch.arange(n)[None], 1, grid)
    chosen = GridDrop()(state, NOTHING, n - stay)
    return [divmod(place, grid[1]) for place in chosen.keep[0].tolist()]


def test_tokens_go_evenly_over_the_grid() -> None:
    assert dither_order(torch.arange(16)[None], (4, 4)).reshape(4, 4).tolist() == [
        [0, 8, 2, 10],
        [12, 4, 14, 6],
        [3, 11, 1, 9],
        [15, 7, 13, 5],
    ]
    assert kept((8, 8), 16) == [(r, c) for r in range(0, 8, 2) for c in range(0, 8, 2)]
    assert kept((8, 8), 32) == [(r, c) for r in range(8) for c in range(8) if (r + c) % 2 == 0]
    assert kept((1, 6), 3) == [(0, 0), (0, 2), (0, 4)]
    for grid in ((7, 5), (1, 20), (13, 13)):
        nested = [set(kept(grid, stay)) for stay in range(1, grid[0] * grid[1] + 1)]
        assert all(few < many for few, many in itertools.pairwise(nested))


def test_places_follow_the_position_and_unknown_ones_stay() -> None:
    index = torch.tensor([[15, -1, 0, 5, 10], [0, 10, -1, 15, 12]])
    chosen = GridDrop()(TokenState(torch.randn(2, 5, 3), index, 0, (4, 4)), NOTHING, 2)
    # Their turns: 5, −1, 0, 4, 1 and 0, 1, −1, 5, 15.
    assert chosen.keep.tolist() == [[1, 2, 4], [0, 1, 2]]
    assert chosen.drop.tolist() == [[3, 0], [3, 4]]


# ---------------------------------------------------------------- BipartiteMatching


@pytest.mark.parametrize("p", [0, 1, 2, 3, 5])
def test_prefix_tokens_neither_merge_nor_receive(p: int) -> None:
    # All prefix tokens look exactly like every image token; none may be touched all the same.
    state = TokenState(torch.zeros(1, p + 6, 1), torch.arange(6)[None], p, (1, 6))
    alike = AttentionStats({AttentionStat.keys(): torch.ones(1, 1, p + 6, 2)})
    chosen = BipartiteMatching()(state, alike, 3)
    assert sorted((*chosen.keep[0].tolist(), *chosen.drop[0].tolist())) == list(range(6))
    # Ties: the first sources, all to the first target.
    assert chosen.drop[0].tolist() == list(range(p % 2, 6, 2))
    assert chosen.partner[0].tolist() == [1 - p % 2] * 3


# ---------------------------------------------------------------- Agglomerative


@pytest.mark.parametrize("joins", [0, 1, 5, 11])
@pytest.mark.parametrize("kind", ["single", "complete", "average"])
def test_clusters_are_those_of_scipy(kind: str, joins: int) -> None:
    points = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(1)).double()
    distance = torch.cdist(points, points)
    for one, image in zip(clustered(distance, joins, kind), distance, strict=True):
        tree = linkage(squareform(image.numpy(), checks=False), kind)
        labels = fcluster(tree, 12 - joins, "maxclust")
        assert one.tolist() == [int(np.flatnonzero(labels == label)[0]) for label in labels]


def test_equal_distances_join_the_lowest_places_first() -> None:
    assert clustered(torch.ones(1, 4, 4), 2, "single").tolist() == [[0, 0, 0, 3]]
    # Even if rounding has told two directions apart.
    distance = torch.cdist(*[torch.tensor([[[0.0], [5.0], [1.0], [9.0]]])] * 2).double()
    distance[:, 0, 2] += 1e-12
    assert clustered(distance, 1, "average").tolist() == [[0, 1, 0, 3]]
