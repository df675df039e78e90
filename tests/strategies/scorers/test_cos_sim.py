"""Minus the mean cosine to the other image tokens, against all pairs in NumPy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings

from tokenred.attention import AttentionStats
from tokenred.core.state import TokenState
from tokenred.strategies import CosSim
from tokenred.testing import Sample, draw

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def brute_force(x: np.ndarray) -> np.ndarray:
    """O(n²), pair by pair; a zero vector has cosine 0 with all."""
    out = np.zeros(x.shape[:2])
    n = x.shape[1]
    for b, i in np.ndindex(*out.shape):
        cosines = []
        for j in range(n):
            lengths = np.linalg.norm(x[b, i]) * np.linalg.norm(x[b, j])
            if j != i:
                cosines.append(x[b, i] @ x[b, j] / lengths if lengths > 0 else 0.0)
        out[b, i] = -np.mean(cosines) if cosines else 0.0
    return out


@QUICK
@given(draw.samples(dtypes=(torch.float64,), flavours=("normal", "duplicates", "zeros", "same")))
def test_on_keys_and_on_features(sample: Sample) -> None:
    p = sample.state.num_prefix
    keys = sample.qkv.k.numpy().mean(axis=1)[:, p:]
    on_keys = CosSim()(sample.state, sample.attention(CosSim().requires))
    np.testing.assert_allclose(on_keys.numpy(), brute_force(keys), atol=1e-9)
    on_features = CosSim(on="features")(sample.state, AttentionStats())
    expected = brute_force(sample.state.image.numpy())
    np.testing.assert_allclose(on_features.numpy(), expected, atol=1e-9)


def test_the_odd_one_stays_on_top() -> None:
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [1.0, -0.1]]])
    score = CosSim(on="features")(TokenState(x, torch.arange(4)[None], 0, (2, 2)), AttentionStats())
    assert score.argmax().item() == 2
