"""What cells start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tokenred as tr
from tokenred.analysis.study.bases import DENSE, read_base
from tokenred.core.errors import ConfigError, PartError, TokenredError, UnknownNameError


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
