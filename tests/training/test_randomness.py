from __future__ import annotations

import random

import numpy as np
import torch

from tokenred.training.randomness import derive, random_as


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_the_same_numbers_for_the_same_seed_and_the_callers_go_on() -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    expected = _draw()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    draws = []
    for numbers in ((1, 2), (2, 1), (1, 2)):
        with random_as(*numbers):
            draws.append(_draw())
    assert draws[0] == draws[2] != draws[1]
    assert _draw() == expected


def test_seeds_differ() -> None:
    assert len({derive(a, b, c) for a in range(5) for b in range(5) for c in range(-3, 5)}) == 200
