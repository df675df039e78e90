"""What cells start from, and from axis values to strategies."""

from pathlib import Path
from typing import Any

import pytest

import tokenred as tr
from tokenred.analysis.study.cell import read_base
from tokenred.core.errors import ConfigError, PartError, TokenredError, UnknownNameError
from tokenred.strategies.specs import Spec


@pytest.mark.parametrize(
    ("base", "assigned", "expected"),
    [
        # Arguments of the recipe.
        ("gtp", {"P": 4, "M": 6, "alpha": 0.2, "theta": 0.7},
         tr.strategy("gtp", P=4, M=6, alpha=0.2, theta=0.7)),
        ("gtp:P=4", {"P": 5, "alpha": [0.1] * 8}, tr.strategy("gtp", P=5, alpha=(0.1,) * 8)),
        ("gtp", {"scorer": "DiagAttn", "aggregate": "mean", "graph": "semantic"},
         tr.strategy("gtp", scorer="DiagAttn", aggregate="mean", graph="semantic")),
        ("evit", {"keep_rate": 0.5}, tr.strategy("evit", keep_rate=0.5)),
        # Fields of a strategy.
        ("tome", {"theta": 0.5, "schedule": 3}, tr.strategy("tome", theta=0.5, schedule=3)),
        # Parameters of parts.
        ("gtp", {"fuser.alpha": 0.4}, tr.strategy("gtp", alpha=0.4)),
        ("gtp", {"scorer.aggregate": "mean"}, tr.strategy("gtp", aggregate="mean")),
        (tr.strategy("gtp"), {"alpha": 0.4, "M": 5, "P": 2},
         tr.strategy("gtp", alpha=0.4, M=5, P=2)),
        ("tome", {"P": 3}, tr.strategy("tome", r=3)),
        ("evit", {"schedule.rounding": "floor"}, tr.strategy("evit").replace(
            schedule=tr.KeepRatio(0.7, rounding="floor"))),
        # A part first, then its parameter.
        (tr.strategy("gtp"), {"graph.M": 5, "graph": "semantic"},
         tr.strategy("gtp").replace(graph=tr.graphs.Semantic(M=5))),
        # Left aside, since this cell's parts do not have it.
        ("gtp", {"graph": "none", "graph.M": 3}, tr.strategy("gtp", graph="none")),
        (tr.Strategy("DiagAttn"), {"graph": "none", "M": 4}, tr.Strategy("DiagAttn")),
        # Nothing changes the dense model.
        ("dense", {"P": 4, "theta": 0.5, "scorer": "CosSim"}, tr.Strategy("Random")),
        # Settings are no arguments, but a seed is the parts' as well.
        ("gtp", {"limit": 3, "dtype": "float32", "budget": 0.5}, tr.strategy("gtp")),
        ("random", {"seed": 4}, tr.strategy("random", seed=4)),
        ("topk:scorer=Random", {"seed": 4}, tr.strategy("topk", scorer=tr.scorers.Random(4))),
        ("random", {"seed": 4, "scorer.seed": 2}, tr.strategy("random", seed=2)),
    ],
)  # fmt: skip
def test_names(base: Any, assigned: dict[str, Any], expected: tr.Strategy) -> None:
    assert read_base(base).build(assigned) == expected


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
def test_bases(given: Any, label: str | None, strategy: tr.Strategy) -> None:
    base = read_base(given)
    assert base.build({}) == strategy
    assert label in (None, base.label)


def test_shares_are_taken_off_the_label(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    tr.strategy("gtp", P=3).to_toml(path)
    for given, label in (("gtp:P=3@0.65", "gtp:P=3"), (f"{path}@0.65", "mine")):
        base = read_base(given)
        assert (base.label, base.share) == (label, 0.65)
        assert base.build({}) == tr.strategy("gtp", P=3)
    for mine in ("merge | sizes", "mine@home", "P@3"):
        base = read_base(Spec(mine, "mine", tr.strategy("gtp", P=3), 0.65))
        assert (base.label, base.share) == (mine, 0.65)


def test_own_recipes_and_parts() -> None:
    @tr.register_strategy("half")
    def half(*, share: float = 0.5) -> tr.Strategy:
        return tr.strategy("topk", keep_rate=share)

    @tr.register_strategy("odd")
    def odd() -> Any:
        return 3

    class Mine(tr.Scorer):
        power: float = 1.0

        def __call__(self, state, attention):  # type: ignore[no-untyped-def]
            return state.image.norm(dim=-1) ** self.power

    assert read_base("half").build({"share": 0.7}) == tr.strategy("topk", keep_rate=0.7)
    with pytest.raises(PartError, match="must return a Strategy"):
        read_base({"recipe": "odd"}).build({})
    made = read_base("gtp").build({"scorer": Mine(), "scorer.power": 2.0})
    assert made.scorer == Mine(2.0)


@pytest.mark.parametrize(
    ("given", "assigned", "error", "message"),
    [
        ("nothing", {}, UnknownNameError, "unknown strategy"),
        ("gtp:Q=3", {}, UnknownNameError, "'Q'"),
        ({"recipe": "gtp", "Q": 3}, {}, UnknownNameError, "'Q'"),
        ({}, {}, ConfigError, "scorer"),
        (3, {}, PartError, "expected a Strategy"),
        ("gone.toml", {}, ConfigError, "cannot read"),
        ("gtp", {"alpha": -1}, ConfigError, "alpha"),
        ("gtp", {"theta": 2}, ConfigError, "theta"),
        ("gtp", {"scorer": "None"}, UnknownNameError, "unknown scorer"),
        ("tome", {"r": "many"}, ConfigError, "tome: r must be"),
    ],
)
def test_refused(
    given: Any, assigned: dict[str, Any], error: type[TokenredError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_base(given).build(assigned)
