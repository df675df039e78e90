"""The semantic graph against a brute-force search in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.core.errors import ConfigError
from tokenred.graphs import Semantic, semantic
from tokenred.graphs.semantic import most_similar
from tokenred.testing import draw
from tokenred.testing.sample import model_info

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def similarities(x: np.ndarray) -> np.ndarray:
    """Cosines; a zero vector has cosine 0 with all."""
    length = np.linalg.norm(x, axis=1)
    unit = np.divide(x, length[:, None], out=np.zeros_like(x), where=length[:, None] > 0)
    return unit @ unit.T


def nearest(x: np.ndarray, m: int) -> np.ndarray:
    """The m best of each row by (similarity, lower place); Python's sort is stable."""
    cosine = similarities(x)
    out = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j, r=row: -r[j])
        out[i, others[:m]] = 1
    return out


@st.composite
def scenes(
    draw_: st.DrawFn, flavours: tuple[str, ...], dtypes: tuple[torch.dtype, ...] = DTYPES
) -> tuple[torch.Tensor, tuple[int, int], int]:
    drawn = draw.samples(whole=True, flavours=flavours, dtypes=dtypes)
    state = draw_(drawn.filter(lambda sample: sample.state.num_patches > 1)).state
    return state.image, state.grid, draw_(st.integers(1, state.num_patches - 1))


@QUICK
@given(scenes(draw.FLAVOURS))
def test_exactly_m_others_are_chosen(scene: tuple[torch.Tensor, tuple[int, int], int]) -> None:
    x, grid, m = scene
    graph = Semantic(M=m)(x, grid)
    adjacency = graph.dense(normalized=False)
    assert torch.equal(graph.degree(), torch.full(graph.degree().shape, float(m)).to(adjacency))
    assert set(adjacency.unique().tolist()) <= {0.0, 1.0}
    assert not adjacency.diagonal(dim1=1, dim2=2).any()
    assert graph.directed
    assert graph.weights.dtype == torch.promote_types(x.dtype, torch.float32)
    # All degrees are M, so every edge weighs 1/M.
    torch.testing.assert_close(graph.dense(), adjacency / m)


@QUICK
@given(scenes(("axes",)))
def test_ties_go_to_the_lower_position(scene: tuple[torch.Tensor, tuple[int, int], int]) -> None:
    x, grid, m = scene
    chosen = Semantic(M=m)(x, grid).dense(normalized=False)
    for image, adjacency in zip(x.double().numpy(), chosen.numpy(), strict=True):
        np.testing.assert_array_equal(adjacency, nearest(image, m))


@QUICK
@given(scenes(("normal", "duplicates", "zeros")))
def test_no_one_left_out_is_more_similar(scene: tuple[torch.Tensor, tuple[int, int], int]) -> None:
    """Equal to the brute force up to rounding, whatever the type."""
    x, grid, m = scene
    chosen = Semantic(M=m)(x, grid).dense(normalized=False)
    for image, adjacency in zip(x.double().numpy(), chosen.numpy(), strict=True):
        cosine = similarities(image)
        np.fill_diagonal(cosine, -np.inf)
        best = np.sort(cosine, axis=1)[:, ::-1][:, :m]
        ours = np.sort(np.where(adjacency > 0, cosine, -np.inf), axis=1)[:, ::-1][:, :m]
        np.testing.assert_allclose(ours, best, atol=1e-5)


@pytest.mark.parametrize("flavour", ["normal", "ties", "zeros"])
@pytest.mark.parametrize("entries", [1, 30, 1 << 20])
def test_blocks_and_keys_change_nothing(
    flavour: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(5, 12, 6, generator=torch.Generator().manual_seed(0))
    if flavour == "ties":  # axes: their cosines are 0 and 1, however they are computed
        x = torch.nn.functional.one_hot(x.argmax(dim=-1), 6).float()
    elif flavour == "zeros":
        x = x * (torch.arange(12) > 4)[:, None]
    unit = torch.nn.functional.normalize(x, dim=-1)
    whole = (unit @ unit.mT).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    expected = whole.sort(dim=-1, descending=True, stable=True).indices[..., :4]
    monkeypatch.setattr(semantic, "_TILE", entries)
    monkeypatch.setattr(semantic, "_BLOCK", entries)
    compiled = torch.compile(most_similar, backend="eager", fullgraph=True)
    for near in (most_similar(x, 4), compiled(x, 4), semantic._first_by_key(whole, 4)):
        # As sets: the order within a row is nobody's business.
        assert torch.equal(near.sort(dim=-1).values, expected.sort(dim=-1).values)


@pytest.mark.parametrize("m", [4, 5, 100])
def test_as_many_neighbours_as_tokens_are_refused(m: int) -> None:
    message = rf"Semantic: M must be below .* got M={m} for 4 tokens. Use M between 1 and 3"
    with pytest.raises(ConfigError, match=message):
        Semantic(M=m)(torch.zeros(1, 4, 2), (2, 2))
    with pytest.raises(ConfigError, match=message):
        Semantic(M=m).check(model_info(8, (2, 2)))


def test_the_authors_program_takes_one_more_without_a_cls_token() -> None:
    with_cls = model_info(8, (3, 3))
    without = replace(with_cls, cls_index=None)
    assert Semantic(M=4, reference=True).build(with_cls) == Semantic(M=4)
    assert Semantic(M=4, reference=True).build(without) == Semantic(M=5)
    assert Semantic(M=8, reference=True).build(without) == Semantic(M=8)
    assert Semantic(M=4).build(without) == Semantic(M=4)
