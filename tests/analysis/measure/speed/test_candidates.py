"""Names, shapes and images of what is measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.analysis.measure.speed.candidates import (
    check_count,
    image_shape_of,
    make_images,
    named_candidates,
)
from tokenred.core.errors import ConfigError, InputError, PartError


def test_names(digits: nn.Module) -> None:
    fast = tr.wrap(digits, "topk")
    assert named_candidates(fast, None) == {"reduced": fast}
    assert named_candidates([fast, digits], digits) == {"0": fast, "1": digits}
    made = named_candidates(["evit", tr.strategy("topk")], digits)
    assert list(made) == ["evit", "1"]
    assert all(isinstance(model, tr.ReducedViT) for model in made.values())
    assert named_candidates({"mine": fast}, None) == {"mine": fast}


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        named_candidates({}, digits)
    with pytest.raises(ConfigError, match="Pass dense="):
        named_candidates("gtp", None)
    with pytest.raises(ConfigError, match="no dense model"):
        named_candidates([digits], None)
    with pytest.raises(PartError, match="got 3"):
        named_candidates({"x": 3}, digits)  # type: ignore[dict-item]
    for value in (0, True, 1.0, "1"):
        with pytest.raises(ConfigError, match="pairs as a whole number from 1"):
            check_count("pairs", value, 1)  # type: ignore[arg-type]


def test_shapes(digits: nn.Module) -> None:
    assert image_shape_of(digits) == (3, 32, 32)
    assert image_shape_of(digits, [1, 8, 16]) == (1, 8, 16)
    for shape in [(32, 32), (3, 0, 32)]:
        with pytest.raises(InputError, match="channels, height, width"):
            image_shape_of(digits, shape)
    with pytest.raises(InputError, match="does not say"):
        image_shape_of(nn.Linear(2, 2))


def test_images_are_the_same_each_time_and_of_the_models_type(digits: nn.Module) -> None:
    one, two = (make_images((2, 3, 8, 8), digits, seed) for seed in (0, 1))
    assert torch.equal(one, make_images((2, 3, 8, 8), digits, 0))
    assert not torch.equal(one, two)
    half = make_images((1, 3, 8, 8), nn.Linear(2, 2).bfloat16(), 0)
    assert half.dtype == torch.bfloat16
    assert make_images((1, 3, 8, 8), nn.Identity(), 0).dtype == torch.float32
