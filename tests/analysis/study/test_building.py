"""What cells start from, and from axis values to strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tokenred as tr
from tokenred.analysis.study.axes import Axes
from tokenred.analysis.study.building import DENSE, Builder, read_base, resolved
from tokenred.core.errors import ConfigError, PartError, TokenredError, UnknownNameError


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


# ---------------------------------------------------------------- bases


@pytest.mark.parametrize(
    ("given", "label", "strategy"),
    [
        ("gtp", "gtp", tr.strategy("gtp")),
        ("GTP:P=4,alpha=0.2", "GTP:P=4,alpha=0.2", tr.strategy("gtp", P=4, alpha=0.2)),
        ("gtp:where=before_block,scorer=Random", None,
         tr.strategy("gtp", where="before_block", scorer="Random")),
        ("topk:scorer=Random(seed=1)", None, tr.strategy("topk", scorer=tr.scorers.Random(1))),
        ({"recipe": "gtp", "P": 4}, "gtp:P=4", tr.strategy("gtp", P=4)),
        ({"scorer": {"name": "CosSim"}, "fuser": {"name": "merge"}}, None,
         tr.Strategy("CosSim", fuser="merge")),
        (tr.Strategy("DiagAttn"), "DiagAttn+Prune", tr.Strategy("DiagAttn")),
        ("dense", "dense", tr.Strategy("Random")),
    ],
)  # fmt: skip
def test_forms(given: Any, label: str | None, strategy: tr.Strategy) -> None:
    base = read_base(given)
    assert base.make({}) == strategy
    assert label in (None, base.label)


def test_shares_are_taken_off_the_label() -> None:
    base = read_base("gtp:P=4@0.65")
    assert (base.label, base.share, base.method) == ("gtp:P=4", 0.65, "gtp")
    assert base.parameters >= {"P", "alpha"}


def test_a_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    tr.strategy("gtp", P=3).to_toml(path)
    base = read_base(f"{path}@0.5")
    assert base.make({}) == tr.strategy("gtp", P=3)
    assert (base.label, base.share) == ("mine", 0.5)


def test_arguments_go_to_the_recipe() -> None:
    made = read_base("gtp:P=4").make({"alpha": 0.3, "P": 5})
    assert made == tr.strategy("gtp", P=5, alpha=0.3)
    dense = read_base(DENSE)
    assert dense.make({"P": 5}) == dense.make({})


def test_own_recipes() -> None:
    @tr.register_strategy("half")
    def half(*, share: float = 0.5) -> tr.Strategy:
        return tr.strategy("topk", keep_rate=share)

    assert read_base("half").make({"share": 0.7}) == tr.strategy("topk", keep_rate=0.7)

    @tr.register_strategy("odd")
    def odd() -> Any:
        return 3

    with pytest.raises(PartError, match="must return a Strategy"):
        read_base({"recipe": "odd"}).make({})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("nothing", UnknownNameError, "unknown strategy"),
        ("gtp:Q=3", UnknownNameError, "'Q'"),
        ({"recipe": "gtp", "Q": 3}, UnknownNameError, "'Q'"),
        ({}, ConfigError, "scorer"),
        (3, PartError, "expected a Strategy"),
        ("gone.toml", ConfigError, "cannot read"),
    ],
)
def test_refused(given: Any, error: type[TokenredError], message: str) -> None:
    with pytest.raises(error, match=message):
        read_base(given)


def test_a_value_of_the_wrong_type_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="tome: r must be"):
        read_base("tome").make({"r": "many"})
