from __future__ import annotations

import math
from typing import Any

import pytest

from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.training.settings import Settings


def test_the_rate_grows_with_the_batch_where_it_is_for_one() -> None:
    settings = Settings(lr=2e-5, lr_per=512, batch_size=1024)
    assert settings.full_lr == 4e-5
    assert settings.replace(lr_per=None).full_lr == 2e-5


def test_weights_may_be_a_mapping_and_settings_stay_hashable() -> None:
    settings = Settings(weights={"distill": 1.0, "ratio": 2.0})  # type: ignore[arg-type]
    assert settings == Settings(weights=(("distill", 1.0), ("ratio", 2.0)))
    assert hash(settings) == hash(settings.replace())
    assert settings.as_dict()["weights"] == [("distill", 1.0), ("ratio", 2.0)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch_size": 1.5}, {"lr": 0}, {"lr": math.nan}, {"mixup": -1},
        {"flip": 1.1}, {"crop": "round"}, {"amp": "fp8"}, {"ema": 2}, {"keep_warmup": (1,)},
        {"keep_warmup": (1, -1)}, {"warmup_epochs": 30}, {"seed": -1}, {"lr_per": 0},
    ],
)  # fmt: skip
def test_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings().replace(**wrong)


def test_names_what_it_does_not_know() -> None:
    with pytest.raises(UnknownNameError, match="batch_size"):
        Settings().replace(batch=3)
