"""Random numbers that depend on (seed, epoch, image) alone, so that a run can go on anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

__all__ = ["derive", "random_as"]


def derive(*numbers: int) -> int:
    """A seed of 32 bits from several numbers, unlike that of any other numbers."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=4).digest(), "big")


@contextmanager
def random_as(*numbers: int, devices: bool = False) -> Iterator[None]:
    """Python's, NumPy's and PyTorch's random numbers as of a seed; afterwards as they were.

    Args:
        numbers: the seed, as `derive` takes it.
        devices: accelerators as well.
    """
    seed = derive(*numbers)
    # timm draws from NumPy's global numbers.
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
