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


def test_an_own_method_and_an_own_scorer_differ_most_from_what_is_there() -> None:
    methods = ["gtp", "tome", "evit", "topk"]
    there = lab([(0, 0, 0), (1, 1, 1), *(colour for colour, _ in looks_of(methods).values())])
    *colours, grey, yellow, light = palette(10)  # grey is the baselines'
    apart = [np.linalg.norm(own - there, axis=1).min() for own in lab([*colours, yellow, light])]
    for own in ("mine", "topk:scorer=Mine@0.65"):
        (mine, _) = looks_of([*methods, own], shades=False)[own]
        assert np.linalg.norm(lab([mine]) - there, axis=1).min() == pytest.approx(max(apart))
        assert mine != grey
    variants = [f"topk:scorer=S{i}" for i in range(8)]
    looks = looks_of([*methods, *variants], shades=False)
    assert len(set(looks.values())) == 12
    assert len({colour for colour, _ in looks.values()}) >= 9


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
