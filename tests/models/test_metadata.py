"""What a file says of its model is read strictly, or refused in a line."""

import json
from typing import Any

import pytest
from torch import nn

from tokenred.core.errors import CheckpointError
from tokenred.models.metadata import (
    parse_preprocessing,
    read_entry,
    set_preprocessing,
    told_preprocessing,
)


def test_an_entry_is_read() -> None:
    metadata = {"a": '{"x": [1, 2.5, null, true]}', "b": "null"}
    assert read_entry(metadata, "a", dict, "w") == {"x": [1, 2.5, None, True]}
    assert read_entry(metadata, "b", (dict, type(None)), "w") is None
    with pytest.raises(CheckpointError, match="the entry is missing"):
        read_entry({}, "a", dict, "w")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "null", "1", '"x"', "{'x': 1}", '{"x": NaN}', '{"x": -Infinity}'),
        *("[" * 10**5, '{"x":' * 10**5, "9" * 5000),
        "\ud800",
    ],
    ids=lambda text: text[:16].encode("ascii", "backslashreplace").decode(),
)
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"expected JSON, an object, in .* 'a'"):
        read_entry({"a": text}, "a", dict, "w")


PREPROCESSING = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "input_size": [3, 32, 32]}
PREPROCESSING |= {"crop_pct": 1.0}


def parse(record: Any) -> dict[str, Any]:
    return parse_preprocessing({"preprocessing": json.dumps(record)}, "w.safetensors")


def test_preprocessing_is_read_and_merged_into_what_the_model_knows() -> None:
    assert parse_preprocessing({}, "w.safetensors") == {}
    expected = {k: tuple(v) if isinstance(v, list) else v for k, v in PREPROCESSING.items()}
    assert parse(PREPROCESSING) == expected
    model: Any = nn.Identity()
    set_preprocessing(model, {})
    assert not hasattr(model, "pretrained_cfg")
    model.pretrained_cfg = known = {**expected, "crop_pct": 0.9, "label_names": ["a"]}
    assert told_preprocessing(model) == {**expected, "crop_pct": 0.9}
    set_preprocessing(model, {"crop_pct": 1.0, "mean": (1.0, 2.0, 3.0)})
    assert model.pretrained_cfg == {**known, "mean": (1.0, 2.0, 3.0), "crop_pct": 1.0}
    assert known["crop_pct"] == 0.9


@pytest.mark.parametrize(
    "change",
    [
        *({"mean": v} for v in ([0.5], [0, 0, 1e300], [0, 0, True])),
        *({"std": v} for v in ([1, 1, 0], "abc")),
        *({"input_size": v} for v in (32, [3, 0, 32])),
        *({"crop_pct": v} for v in (0, "all", True)),
        *({"crop_mode": "centre"}, {"architecture": ["vit"]}, {"interpolation": "psychic"}),
        {"size": 3},
    ],
)
def test_unusable_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(change))):
        parse({**PREPROCESSING, **change})
