"""Random numbers that depend only on (seed, epoch, image), so that a run can resume anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

__all__ = ["derive", "random_as"]


def derive(*numbers: int) -> int:
    """A 32-bit seed derived from several numbers, different for different numbers."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=4).digest(), "big")


@contextmanager
def random_as(*numbers: int, devices: bool = False) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's generators inside the block, and restore them after it.

    Args:
        numbers: the seed, as for `derive`.
        devices: whether to seed accelerators as well.
    """
    seed = derive(*numbers)
    # timm uses NumPy's global generator.
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(None if devices else []):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        if devices:
            torch.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
