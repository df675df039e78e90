"""A method has one colour and marker in every figure, and a name to read."""

from __future__ import annotations

from itertools import combinations

import pytest

from tokenred import list_strategies
from tokenred.analysis.plots.frames import METHODS
from tokenred.analysis.plots.looks import looks_of, read_name


def test_a_method_looks_the_same_beside_any_others() -> None:
    alone = looks_of(["tome"])["tome"]
    assert looks_of(["mine", "gtp", "evit", "tome"])["tome"] == alone
    assert looks_of(["dense", "tome:r=8"])["tome:r=8"] == alone


def test_no_two_look_alike() -> None:
    names = [name for name in METHODS if name not in ("random", "uniform")]
    looks = looks_of([*names, "mine", "theirs", "gtp:P=3", "gtp:P=5"])
    assert all(a != b for a, b in combinations(looks.values(), 2))


def test_own_methods_get_colours_that_are_free() -> None:
    looks = looks_of(["gtp", "tome", "evit", "mine", "theirs"])
    assert len({colour for colour, _ in looks.values()}) == 5


def test_every_recipe_has_a_name() -> None:
    assert {name for name in list_strategies() if name == name.casefold()} <= set(METHODS)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("tome", "ToMe"),
        ("gtp:P=8,theta=0.6", "GTP-ViT, P=8, θ=0.6"),
        ("evit@0.65", "EViT at 0.65"),
        ("my method: 3", "my method: 3"),
    ],
)
def test_names(written: str, read: str) -> None:
    assert read_name(written) == read
