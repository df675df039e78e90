from __future__ import annotations

import json
from typing import Any

import pytest
from torch import nn

from tokenred.core.errors import CheckpointError
from tokenred.models.preprocessing import parse_preprocessing, set_preprocessing

GOOD = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "input_size": [3, 32, 32], "crop_pct": 1.0}


def parse(record: Any) -> dict[str, Any]:
    return parse_preprocessing({"preprocessing": json.dumps(record)}, "w.safetensors")


def test_a_record_is_read() -> None:
    assert parse_preprocessing({}, "w.safetensors") == {}
    assert parse(GOOD) == {
        "mean": (0.1, 0.2, 0.3),
        "std": (1.0, 1.0, 1.0),
        "input_size": (3, 32, 32),
        "crop_pct": 1.0,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.5]},
        {"std": [1, 1, 0]},
        {"std": "abc"},
        {"mean": [0, 0, 1e300]},
        {"mean": [0, 0, True]},
        {"input_size": 32},
        {"input_size": [3, 0, 32]},
        {"crop_pct": 0},
        {"crop_pct": "all"},
        {"crop_pct": True},
        {"crop_mode": "centre"},
        {"architecture": ["vit"]},
        {"interpolation": "psychic"},
        {"size": 3},
    ],
)
def test_an_unusable_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(change))):
        parse({**GOOD, **change})


def test_a_record_is_merged_into_what_the_model_knows() -> None:
    model = nn.Identity()
    set_preprocessing(model, {})
    assert not hasattr(model, "pretrained_cfg")

    known = {"mean": (0, 0, 0), "crop_pct": 0.9}
    model.pretrained_cfg = known  # type: ignore[assignment]
    set_preprocessing(model, {"crop_pct": 1.0}, mean=[1, 2, 3])

    assert model.pretrained_cfg == {"mean": (1.0, 2.0, 3.0), "crop_pct": 1.0}
    assert known == {"mean": (0, 0, 0), "crop_pct": 0.9}
