"""What every adapter refuses of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tokenred.backbones.images import check_batch
from tokenred.core.errors import InputError

WEIGHT = torch.zeros(1)


def test_takes_a_batch_of_the_type_of_the_weights() -> None:
    check_batch(torch.zeros(2, 3, 4, 4), 3, WEIGHT)
    with torch.autocast("cpu", torch.bfloat16):
        check_batch(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16), 3, WEIGHT)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), r"must be \(batch, 3, height, width\), got \(3, 4, 4\)\. Look\."),
        (torch.zeros(2, 1, 4, 4), r"got \(2, 1, 4, 4\)"),
        ({"pixel_values": 1}, "got dict"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.float64), "must be torch.float32 like the weights"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "got torch.uint8"),
    ],
)
def test_refuses_the_rest(images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_batch(images, 3, WEIGHT, " Look.")
