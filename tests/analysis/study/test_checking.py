"""What a model can do, without the model."""

from __future__ import annotations

import pytest
from torch import nn

import tokenred as tr
from tokenred.analysis.study.checking import Checker
from tokenred.analysis.study.facts import Facts
from tokenred.analysis.study.marks import marks_of
from tokenred.analysis.study.refs import read_model
from tokenred.core.errors import ConfigError, ScheduleError


@pytest.fixture
def checker(digits: nn.Module) -> Checker:
    return Checker(Facts().model(read_model(digits)))


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize("name", tr.list_strategies())
def test_costs_are_those_of_the_wrapped_model(
    checker: Checker, digits: nn.Module, name: str
) -> None:
    strategy = tr.strategy(name)
    for _ in range(2):  # the second from memory
        own, real = checker.cost(strategy), tr.wrap(digits, strategy).cost()
        assert own == real


def test_budgets_find_the_same_counts(checker: Checker, digits: nn.Module) -> None:
    strategy = tr.strategy("gtp", schedule=tr.Budget(0.05))
    assert checker.cost(strategy).gmacs == tr.wrap(digits, strategy).cost().gmacs


@pytest.mark.parametrize(
    ("strategy", "error", "message"),
    [
        (tr.strategy("gtp", P=20), ScheduleError, "block 3"),
        (tr.strategy("gtp", alpha=(0.1, 0.2)), ConfigError, "8 blocks"),
        (tr.strategy("gtp", M=64), ConfigError, "M"),
        (tr.strategy("gtp", schedule=tr.Budget(1e-6)), ScheduleError, "budget"),
    ],
)
def test_refused_each_time(
    checker: Checker, strategy: tr.Strategy, error: type[Exception], message: str
) -> None:
    for _ in range(2):
        with pytest.raises(error, match=message):
            checker.check(strategy, marks_of(strategy))


def test_a_refusal_does_not_hang_on_the_order(checker: Checker) -> None:
    good, bad = tr.strategy("gtp", M=4), tr.strategy("gtp", M=64)
    assert checker.check(good, marks_of(good))
    with pytest.raises(ConfigError):
        checker.check(bad, marks_of(bad))
