"""A method has one colour and marker in every figure, and a name to read."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tokenred import list_strategies
from tokenred.analysis.plots.canvas import lab, palette
from tokenred.analysis.plots.frames import METHODS
from tokenred.analysis.plots.looks import looks_of, read_name, variants_of


def test_a_method_looks_the_same_beside_any_others_and_its_variants() -> None:
    alone = looks_of(["tome"])["tome"]
    assert looks_of(["mine", "gtp", "evit", "tome"])["tome"] == alone
    assert looks_of(["dense", "tome:r=8"])["tome:r=8"] == alone
    looks = looks_of(["tome:r=8", "tome"])
    assert looks["tome"] == alone != looks["tome:r=8"]


def test_no_two_look_alike_and_own_methods_get_colours_that_are_free() -> None:
    looks = looks_of([*METHODS, "mine", "theirs", "gtp:P=3", "gtp:P=5"])
    assert all(a != b for a, b in combinations(looks.values(), 2))
    looks = looks_of(["gtp", "tome", "evit", "mine", "theirs"])
    assert len({colour for colour, _ in looks.values()}) == 5


def test_no_two_of_few_methods_have_one_colour_and_the_more_common_keeps_its_own() -> None:
    for common, rare in combinations(METHODS, 2):
        for shades in (True, False):
            looks = looks_of([rare, "mine", common], shades=shades)
            assert len({colour for colour, _ in looks.values()}) == 3
            assert looks[common] == looks_of([common])[common]
    common = ("gtp", "tome", "evit", "topk", "random", "dense")
    for rare in combinations(METHODS.keys() - {*common}, 2):
        looks = looks_of([*rare, "mine", *common])
        assert len({colour for colour, _ in looks.values()}) == 9
        assert {name: looks[name] for name in common} == looks_of(common)
    # Whoever has to change takes a colour that nobody else has.
    assert looks_of(["pitome", "tome", "tomecis"])["tomecis"] == looks_of(["tomecis"])["tomecis"]


def test_own_methods_and_scorers_look_alike_in_every_figure() -> None:
    common = ["gtp", "tome", "evit", "topk", "random", "dense"]
    alone = looks_of(["mine", "theirs"])
    for others in (common, common[:2], common[3:]):
        beside = looks_of([*others, "mine", "theirs"])
        assert {name: beside[name] for name in alone} == alone
        assert len(set(beside.values())) == len(beside)
        scorer = looks_of([*others, "topk:scorer=Mine@0.65"], shades=False)
        assert scorer["topk:scorer=Mine@0.65"] in (alone["mine"], looks_of(["topk"])["topk"])
    variants = [f"topk:scorer=S{i}" for i in range(8)]
    looks = looks_of([*common, *variants], shades=False)
    assert len(set(looks.values())) == len(looks)


def test_an_own_scorer_looks_the_same_in_any_strategy_and_figure() -> None:
    axis = looks_of(["MixedAttn", "Mine", "Theirs"])
    strategies = {name: f"topk:scorer={name}(reach=2)@0.65" for name in ("Mine", "Theirs")}
    for shades in (True, False):
        looks = looks_of(["gtp@0.65", *strategies.values(), "topk"], shades=shades)
        assert {name: looks[written] for name, written in strategies.items()} == {
            name: axis[name] for name in strategies
        }
        assert looks["topk"] == looks_of(["topk"])["topk"]


def test_colours_of_own_methods_differ_from_the_common_ones_and_each_other() -> None:
    names = ["gtp", "tome", "evit", "topk", *(f"mine {i}" for i in range(5))]
    colours = [colour for colour, _ in looks_of(names).values()]
    for a, b in combinations(lab([(0, 0, 0), (1, 1, 1), *colours[:7]]), 2):
        assert np.linalg.norm(a - b) > 30
    assert len(set(colours)) == len(names)


def test_numbers_have_the_colours_in_order() -> None:
    looks = looks_of([3, 3, 5, 5, 5, 0.5])
    assert list(looks) == [3, 5, 0.5]
    assert [colour for colour, _ in looks.values()] == palette(3)


def test_every_recipe_has_a_name() -> None:
    assert {name for name in list_strategies() if name == name.casefold()} <= set(METHODS)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("tome", "ToMe"),
        ("gtp:P=8,theta=0.6", "GTP-ViT, P=8, θ=0.6"),
        ("evit@0.65", "EViT at 0.65"),
        ("resolution@0.65", "Resolution at 0.65"),
        ("mine@0.65", "mine at 0.65"),
        ("my method: 3", "my method: 3"),
    ],
)
def test_names(written: str, read: str) -> None:
    assert read_name(written) == read


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([("gtp:P=4", "gtp", "", 4), ("gtp:P=8", "gtp", "", 8)], ["gtp", "gtp"]),
        ([("tome:r=8", "tome", "", 8)], ["tome:r=8"]),
        ([("light", "gtp", "", 4), ("heavy", "gtp", "", 8)], ["gtp", "gtp"]),
        ([("mine", "gtp", "A", 4), ("yours", "gtp", "B", 4)], ["mine", "yours"]),
        (
            [("gtp:M=2,P=4@0.7", "gtp", "", 1), ("gtp:M=2,P=3@0.7", "gtp", "", 2)],
            ["gtp:M=2@0.7"] * 2,
        ),
    ],
)
def test_variants_are_named_by_what_they_share(rows: list[Any], names: list[str]) -> None:
    frame = pd.DataFrame(rows, columns=["strategy", "method", "scorer", "schedule"])
    config = frame[["scorer", "schedule"]].to_dict("records")
    frame = frame.assign(config=list(map(json.dumps, config)))
    assert variants_of(frame) == names
    assert variants_of(frame[["method"]]) == [method for _, method, *_ in rows]
