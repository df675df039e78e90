"""From axis values to strategies."""

from __future__ import annotations

from typing import Any

import pytest

import tokenred as tr
from tokenred.analysis.study.axes import Axes
from tokenred.analysis.study.bases import read_base
from tokenred.analysis.study.building import Builder, resolved
from tokenred.core.errors import TokenredError, UnknownNameError


def build(base: Any, **assigned: Any) -> tr.Strategy:
    names = {name.replace("__", "."): value for name, value in assigned.items()}
    made = read_base(base)
    return Builder([made], Axes({k: [v] for k, v in names.items()}, None))(made, names)


@pytest.mark.parametrize(
    ("base", "assigned", "expected"),
    [
        # Arguments of the recipe.
        ("gtp", {"P": 4, "M": 6, "alpha": 0.2, "theta": 0.7},
         tr.strategy("gtp", P=4, M=6, alpha=0.2, theta=0.7)),
        ("gtp", {"alpha": [0.1] * 8}, tr.strategy("gtp", alpha=(0.1,) * 8)),
        ("gtp", {"scorer": "DiagAttn", "aggregate": "mean", "graph": "semantic"},
         tr.strategy("gtp", scorer="DiagAttn", aggregate="mean", graph="semantic")),
        ("evit", {"keep_rate": 0.5}, tr.strategy("evit", keep_rate=0.5)),
        # Fields of a strategy.
        ("tome", {"theta": 0.5, "schedule": 3}, tr.strategy("tome", theta=0.5, schedule=3)),
        ("gtp", {"schedule": tr.KeepRatio(0.5)}, tr.strategy("gtp").replace(
            schedule=tr.KeepRatio(0.5))),
        # Parameters of parts.
        ("gtp", {"fuser__alpha": 0.4}, tr.strategy("gtp", alpha=0.4)),
        ("gtp", {"scorer__aggregate": "mean"}, tr.strategy("gtp", aggregate="mean")),
        (tr.strategy("gtp"), {"alpha": 0.4, "M": 5, "P": 2},
         tr.strategy("gtp", alpha=0.4, M=5, P=2)),
        ("tome", {"P": 3}, tr.strategy("tome", r=3)),
        ("evit", {"schedule__rounding": "floor"}, tr.strategy("evit").replace(
            schedule=tr.KeepRatio(0.7, rounding="floor"))),
        # A part first, then its parameter.
        (tr.strategy("gtp"), {"graph__M": 5, "graph": "semantic"},
         tr.strategy("gtp").replace(graph=tr.graphs.Semantic(M=5))),
        # Left aside, since this cell's parts do not have it.
        ("gtp", {"graph": "none", "graph__M": 3}, tr.strategy("gtp", graph="none")),
        ("gtp", {"scorer": "Random", "scorer__aggregate": "mean"},
         tr.strategy("gtp", scorer="Random")),
        # Nothing changes the dense model.
        ("dense", {"P": 4, "theta": 0.5, "scorer": "CosSim"}, tr.Strategy("Random")),
        # Settings are no arguments, but a seed is the parts' as well.
        ("gtp", {"limit": 3, "dtype": "float32", "budget": 0.5}, tr.strategy("gtp")),
        ("random", {"seed": 4}, tr.strategy("random", seed=4)),
        ("topk:scorer=Random", {"seed": 4}, tr.strategy("topk", scorer=tr.scorers.Random(4))),
        ("random", {"seed": 4, "scorer__seed": 2}, tr.strategy("random", seed=2)),
    ],
)  # fmt: skip
def test_names(base: Any, assigned: dict[str, Any], expected: tr.Strategy) -> None:
    assert build(base, **assigned) == expected


def test_tables_describe_parts() -> None:
    table = {"name": "DiagAttn", "aggregate": "mean"}
    assert resolved("scorer", table) == tr.scorers.DiagAttn("mean")
    assert resolved("score_mods", []) == []
    assert resolved("model", {"spec": "digits"}) == {"spec": "digits"}
    assert resolved("alpha", [0.1, 0.2]) == [0.1, 0.2]


def test_own_parts_have_own_parameters() -> None:
    class Mine(tr.Scorer):
        power: float = 1.0

        def __call__(self, state, attention):  # type: ignore[no-untyped-def]
            return state.image.norm(dim=-1) ** self.power

    made = build("gtp", scorer=Mine(), scorer__power=2.0)
    assert made.scorer == Mine(2.0)


@pytest.mark.parametrize(
    ("base", "name", "message"),
    [
        ("gtp", "alfa", "Did you mean 'alpha'"),
        ("gtp", "keep_rate", "unknown axis"),
        ("gtp", "scorer.agregate", "unknown axis"),
        ("gtp", "nothing.alpha", "unknown axis"),
        ("gtp", "scorer.alpha", "unknown axis"),
        ("evit", "alpha", "unknown axis"),
        (tr.Strategy("DiagAttn"), "M", "unknown axis"),
    ],
)
def test_a_name_that_means_nothing(base: Any, name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        Builder([read_base(base)], Axes({name: [1]}, None))


def test_a_part_on_an_axis_is_enough() -> None:
    """The base has no graph, and so no M; one of the graphs has."""
    base = read_base(tr.Strategy("DiagAttn"))
    build = Builder([base], Axes({"graph": ["none", "Semantic"], "M": [4]}, None))
    assert build(base, {"graph": "none", "M": 4}) == tr.Strategy("DiagAttn")
    made = build(base, {"graph": "Semantic", "M": 4})
    assert made == tr.Strategy("DiagAttn", graph=tr.graphs.Semantic(4))


def test_one_base_of_several_is_enough() -> None:
    bases = [read_base("gtp"), read_base("evit")]
    build = Builder(bases, Axes({"keep_rate": [0.5]}, None))
    assert build(bases[0], {"keep_rate": 0.5}) == tr.strategy("gtp")
    assert build(bases[1], {"keep_rate": 0.5}) == tr.strategy("evit", keep_rate=0.5)


@pytest.mark.parametrize(
    ("assigned", "message"),
    [({"alpha": -1}, "alpha"), ({"theta": 2}, "theta"), ({"scorer": "None"}, "unknown scorer")],
)
def test_values_that_a_part_refuses(assigned: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenredError, match=message):
        build("gtp", **assigned)
