"""Settings as values, those of the papers, and what they make of rates and reduction."""

import math
from typing import Any

import pytest

import tokenred as tr
from tests.training.conftest import tiny
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.training import METHOD_SETTINGS, PRESETS, Settings, method_of, settings_for
from tokenred.training.optimise import make_optimizer, make_schedule, reduction_share, warmed

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


# ---------------------------------------------------------------- values


def test_settings_are_values() -> None:
    settings = Settings(weights={"distill": 1.0, "ratio": 2.0}, lr=2e-5, lr_per=512)
    assert settings == settings.replace(weights=(("distill", 1.0), ("ratio", 2.0)))
    assert hash(settings) == hash(settings.replace())
    assert settings.as_dict()["weights"] == [("distill", 1.0), ("ratio", 2.0)]
    # The rate grows with the batch if it is for one.
    assert settings.replace(batch_size=1024).full_lr == 4e-5
    assert settings.replace(batch_size=1024, lr_per=None).full_lr == 2e-5


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch_size": 1.5}, {"lr": 0}, {"lr": math.nan}, {"mixup": -1},
        {"flip": 1.1}, {"crop": "round"}, {"amp": "fp8"}, {"ema": 2}, {"keep_warmup": (1,)},
        {"keep_warmup": (1, -1)}, {"warmup_epochs": 30}, {"seed": -1}, {"lr_per": 0},
    ],
)  # fmt: skip
def test_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings().replace(**wrong)


def test_names_what_it_does_not_know() -> None:
    with pytest.raises(UnknownNameError, match="batch_size"):
        Settings().replace(batch=3)
    with pytest.raises(UnknownNameError, match="gtp"):
        settings_for("gpt")
    with pytest.raises(UnknownNameError, match="digits"):
        settings_for("gtp", "digit")


# ---------------------------------------------------------------- of the papers


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_a_preset_keeps_the_criterion(method: str, preset: str) -> None:
    paper, few = settings_for(method), settings_for(method, preset)
    assert (few.criterion, few.teacher) == (paper.criterion, paper.teacher)
    assert few.batch_size <= 128


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("gtp", "gtp"), ("idlevit", "idlevit"), ("dynamicvit", "dynamicvit"), ("evit", "gtp"),
        ("mctf", "mctf"), ("dpcknn", "dpcknn"), ("kmedoids", "kmedoids"), ("sit", "sinkhorn"),
        ("patchmerger", "sinkhorn"), ("frequency", "frequency"),
    ],
)  # fmt: skip
def test_the_method_is_seen_from_the_parts(name: str, method: str) -> None:
    assert method_of(tr.strategy(name)) == method


# ---------------------------------------------------------------- rates and reduction


def test_rates_and_decay_of_backbone_and_learned_parts() -> None:
    settings = Settings(lr=1e-2, min_lr=0, backbone_lr=0.1, epochs=2, weight_decay=0.3)
    model = tr.wrap(tiny(), "dynamicvit")
    optimizer = make_optimizer(model, settings)
    make_schedule(optimizer, settings, 10).step_update(10)
    rates = {group["backbone"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {False: pytest.approx(5e-3), True: pytest.approx(5e-4)}
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == len(list(model.parameters()))
    assert decay[id(model.head.weight)] == 0.3
    assert decay[id(model.head.bias)] == decay[id(model.pos_embed)] == 0


def test_the_share_of_the_reduction_over_epochs() -> None:
    assert reduction_share(0, None) == reduction_share(0, (0, 0)) == 1
    shares = [reduction_share(epoch, (10, 100)) for epoch in range(120)]
    assert shares[:11] == [0] * 11
    assert shares[60] == pytest.approx(0.5)
    assert shares == sorted(shares)
    assert shares[110:] == [1] * 10


@pytest.mark.parametrize("name", ["gtp", "evit", "topk", "tome", "idlevit"])
def test_from_nothing_to_the_strategy(name: str) -> None:
    whole = tr.wrap(tiny(), tr.strategy(name))
    costs = [whole.with_strategy(warmed(whole, share)).cost().gmacs for share in (0, 0.3, 0.6, 0.9)]
    assert costs[0] == pytest.approx(tr.gmacs(whole.base), rel=1e-2)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] >= whole.cost().gmacs
    assert warmed(whole, 1) is whole.strategy


def test_half_a_reduction() -> None:
    def half(strategy: Any) -> Any:
        return warmed(tr.wrap(tiny(), strategy), 0.5)

    counts = tr.wrap(tiny(), half(tr.strategy("gtp", P=2))).cost().layers
    assert [layer.removed for layer in counts] == [1] * 4
    assert half(tr.strategy("evit", keep_rate=0.5)).schedule == tr.KeepRatio(0.75)
    masked = half(tr.strategy("tri-level", attention_rate=0.3))
    assert masked.score_mods[0].ratio == pytest.approx(0.65)
