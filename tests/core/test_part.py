from __future__ import annotations

from typing import Any

import pytest

import tokenred as tr
from tests.strategies.recipes.checks import model
from tokenred.core.errors import ConfigError, PartError, UnknownNameError


class Plain(tr.Scorer):
    """One line.

    And more.
    """

    power: float = 1.0


def test_a_class_body_is_a_frozen_dataclass() -> None:
    assert repr(Plain(2.0)) == "Plain(power=2.0)"
    assert Plain() == Plain(1.0)
    assert hash(Plain()) == hash(Plain(1.0))
    assert Plain() != Plain(2.0)
    with pytest.raises(AttributeError):
        Plain().power = 3.0  # type: ignore[misc]


def test_an_unknown_trait_is_told_its_name() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Traits has no parameter 'needs_grids'.*'needs_grid'"
    ):
        tr.Traits(needs_grids=True)  # type: ignore[call-arg]


def test_a_parameter_without_annotation_is_told_to_have_one() -> None:
    class Bare(tr.Scorer):
        power = 2.0
        uses_graph = True

    for make in (Bare, Bare().replace):
        with pytest.raises(UnknownNameError, match=r"Bare: power .* Write power: float = 2\.0"):
            make(power=3.0)
        with pytest.raises(UnknownNameError, match="Bare has no parameter 'uses_graph'"):
            make(uses_graph=False)


def test_own_init_is_refused_where_it_is_written() -> None:
    with pytest.raises(tr.errors.ConfigError, match="annotated fields"):

        class Wrong(tr.Scorer):
            def __init__(self) -> None:
                pass


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((tr.Scorer, name) for name in ("network", "per_block", "traits", "version", "requires")),
        (tr.Selector, "limit"),
        (tr.GraphBuilder, "build"),
        (tr.Fuser, "extra"),
        (tr.Schedule, "share"),
        (tr.Router, "active"),
        (tr.ScoreMod, "values"),
        (tr.Embedding, "adds"),
        (tr.fusers.Propagate, "transport"),
    ],
)
def test_a_parameter_hides_nothing_of_the_contract(kind: type, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"Mine: the parameter '{name}' would hide \w+\.{name}"):
        type("Mine", (kind,), {"__annotations__": {name: int}, name: 1})


def test_what_the_contract_has_can_be_set() -> None:
    class Another(tr.fusers.Propagate):
        alpha: float = 0.2  # a parameter with another default
        linear = False

    assert (Another().alpha, Another().linear) == (0.2, False)


@pytest.mark.parametrize(
    ("recipe", "arguments"),
    [
        ("adamerge", {"mean": (0.1,) * 3, "std": (0.1,) * 4}),
        ("adamerge", {"mean": (0.1,) * 4, "std": (0.1,) * 3}),
        ("dtome", {"thresholds": (0.5,) * 3}),
        ("gtp", {"alpha": (0.5,) * 3}),
        ("pitome", {"margins": (0.5,) * 3}),
        ("tofu", {"modes": ("mean",) * 3}),
    ],
)
def test_several_values_are_one_for_each_block(recipe: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"has 3 values, but .* has 4 blocks\. Pass one for each"):
        tr.wrap(model(), tr.strategy(recipe, **arguments))


def test_a_method_takes_what_it_is_called_with() -> None:
    expected = r"Mine: expected __call__\(self, state, attention\), got __call__\(self, x\)"
    with pytest.raises(PartError, match=expected):

        class Mine(tr.Scorer):
            def __call__(self, x: Any) -> Any:  # type: ignore[override]
                return x
