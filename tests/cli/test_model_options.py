"""Options about a model."""

from __future__ import annotations

import pytest

from tokenred.cli.model_options import model_title, read_numbers
from tokenred.core.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "random", "expected"),
    [
        ("Digits", False, "digits ViT"),
        ("deit_small_patch16_224.fb_in1k", False, "deit_small_patch16_224.fb_in1k"),
        ("folder/mine.safetensors", False, "mine"),
        ("deit_small_patch16_224", True, "deit_small_patch16_224 (random weights)"),
    ],
)
def test_titles(given: str, random: bool, expected: str) -> None:
    assert model_title(given, random) == expected


def test_numbers() -> None:
    assert read_numbers("--mean", "0.5, 0.25,1") == (0.5, 0.25, 1.0)
    assert read_numbers("--mean", None) is None
    with pytest.raises(ConfigError, match=r"--std .* 'a,b,c'"):
        read_numbers("--std", "a,b,c")
