"""The attention map of a drawn sample in NumPy: what the statistics are compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tokenred.testing import Sample


def softmax_map(sample: Sample) -> np.ndarray:
    """``(b, h, N, N)`` by the definition, in double precision."""
    q, k = (t.double().numpy() for t in (sample.qkv.q, sample.qkv.k))
    logits = np.einsum("bhid,bhjd->bhij", q, k) * sample.qkv.scale
    if sample.proportional:
        logits += np.log(sample.state.size.double().numpy())[:, None, None, :]
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="session")
def full_map() -> Callable[[Sample], np.ndarray]:
    return softmax_map
