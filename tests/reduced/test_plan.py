"""Budgets that a router spends."""

import pytest
import torch

import tokenred as tr
from tests.backbones.forms import vit
from tokenred.core.errors import ScheduleError, UnusedWarning
from tokenred.strategies.routers import Idle
from tokenred.strategies.specs import parse_spec

SIZES = {"img_size": 32, "patch_size": 4, "depth": 8}


@pytest.mark.parametrize("share", [0.45, 0.62, 0.9])
@pytest.mark.parametrize("name", ["idlevit", "evo-vit"])
def test_a_route_takes_as_many_tokens_as_fit(name: str, share: float) -> None:
    model = vit(**SIZES)
    budget = share * tr.gmacs(model)
    fast = tr.wrap(model, parse_spec(f"{name}@{share}").resolve(tr.gmacs(model)))
    router = fast.strategy.router
    passing = {x.active for x in fast.cost().layers} - {64}
    assert fast.cost().gmacs <= budget
    assert passing
    # One token more in the first stage would be too many.
    first = (router.keep_ratios if isinstance(router, Idle) else router.keep_rate) * 64
    more = fast.with_strategy(fast.strategy.replace(router=router.with_budget((first + 1) / 64)))
    assert more.cost().gmacs > budget
    assert fast(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_each_layer_with_a_ratio_of_its_own_gets_the_same() -> None:
    strategy = tr.strategy("idlevit", keep_ratios=(0.9, 0.5), layers=(2, 5))
    model = vit(**SIZES)
    fast = tr.wrap(model, strategy.replace(schedule=tr.Budget(0.9 * tr.gmacs(model))))
    low, high = fast.strategy.router.keep_ratios
    assert low == high < 0.9


def test_a_budget_that_nothing_fits() -> None:
    model = vit(**SIZES)
    for spec, words in (("idlevit@0.1", "one active token"), ("ats@0.5", "the image needs")):
        with pytest.raises(ScheduleError, match=words):
            tr.wrap(model, parse_spec(spec).resolve(tr.gmacs(model)))


def test_budgets_of_schedules_stay_theirs() -> None:
    model = vit(**SIZES)
    fast = tr.wrap(model, parse_spec("gtp@0.8").resolve(tr.gmacs(model)))
    assert isinstance(fast.strategy.schedule, tr.Budget)
    assert tr.strategy("idlevit", cut=None).router == Idle(cut="none")


@pytest.mark.parametrize("adaptive", [0, 1])
def test_no_step_of_a_budget_counts_by_the_image(adaptive: int) -> None:
    model = vit(**SIZES)
    own = tr.strategy("ats").steps[0].replace(layers=(2,))
    spent = tr.Step("CLSAttn", schedule=tr.Budget(0.8 * tr.gmacs(model)))
    both = (own, spent.replace(layers=(5,))) if adaptive == 0 else (spent.replace(layers=(1,)), own)
    with pytest.raises(ScheduleError, match=r"InverseTransform\(.* as the image needs"):
        tr.wrap(model, tr.Strategy(steps=both))


@pytest.mark.parametrize("kind", ["scorer", "selector", "fuser", "router"])
@pytest.mark.parametrize(
    ("written", "got"),
    [
        (property(lambda part: tr.AttentionStat.keys()), "AttentionStat"),  # no comma
        (property(lambda part: ("diagonal",)), r"\('diagonal',\)"),
        (property(lambda part: None), "None"),
        (lambda part: (tr.AttentionStat.keys(),), "a method"),
    ],
)
def test_what_requires_must_be(kind: str, written: object, got: str) -> None:
    contracts = {"scorer": tr.Scorer, "selector": tr.Selector, "fuser": tr.Fuser}
    contract = contracts.get(kind, Idle)
    part = type("Mine", (contract,), {"requires": written})()
    strategy = tr.Strategy("CosSim", schedule=int(kind != "router")).replace(**{kind: part})
    with pytest.raises(tr.errors.PartError, match=rf"Mine: requires must .*property.*; got {got}"):
        tr.wrap(vit(**SIZES), strategy)


def test_a_budget_above_the_whole_cost_is_told() -> None:
    model = vit(**SIZES)
    strategy = tr.strategy("gtp", schedule=tr.Budget(0.65))
    with pytest.warns(UnusedWarning, match="0.65 GMACs and the whole model costs 0.00"):
        assert tr.wrap(model, strategy).cost().gmacs == tr.gmacs(model)
