from __future__ import annotations

import pytest

import tokenred as tr
from tokenred.core.errors import UnknownNameError
from tokenred.training.losses import make_criterion
from tokenred.training.presets import METHOD_SETTINGS, PRESETS, method_of, settings_for


def test_the_papers_settings() -> None:
    gtp, idle, dynamic = map(settings_for, ("gtp", "idlevit", "dynamicvit"))
    assert (gtp.epochs, gtp.full_lr, gtp.min_lr) == (30, 1e-5, 1e-6)
    assert (idle.ema, idle.weight_decay, idle.min_lr) == (0.99996, 0.05, 1e-6)
    assert idle.replace(batch_size=512).full_lr == 1e-5
    assert idle.frozen == ("pos_embed", "cls_token")
    loss = make_criterion(idle.criterion, **dict(idle.weights))
    assert (loss.token_cut, loss.distill, loss.cls_feature) == (20, 5, 500)
    assert (dynamic.lr, dynamic.backbone_lr, dynamic.backbone_frozen) == (1e-3, 0.01, 5)
    assert (dynamic.batch_size, dynamic.warmup_epochs, dynamic.ema) == (1024, 5, 0.9999)
    assert dynamic.frozen == ("pos_embed", "cls_token")
    assert settings_for("evit-scratch").keep_warmup == (10, 100)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_a_preset_keeps_the_criterion(method: str, preset: str) -> None:
    paper, small = settings_for(method), settings_for(method, preset)
    assert (small.criterion, small.teacher) == (paper.criterion, paper.teacher)
    assert small.batch_size <= 128


def test_predictors_of_a_small_model_learn_fast_and_must_meet_the_ratio() -> None:
    small, other = settings_for("dynamicvit", "digits"), settings_for("gtp", "digits")
    assert small.lr * small.backbone_lr == pytest.approx(other.lr)
    loss = make_criterion(small.criterion, **dict(small.weights))
    assert loss.ratio == 20
    assert loss.distill == 0.5


def test_other_recipes_train_as_gtp() -> None:
    assert settings_for("ToMe") == settings_for("gtp")


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="gtp"):
        settings_for("gpt")
    with pytest.raises(UnknownNameError, match="digits"):
        settings_for("gtp", "digit")


@pytest.mark.parametrize("name", ["gtp", "idlevit", "dynamicvit"])
def test_the_method_is_read_off_the_parts(name: str) -> None:
    assert method_of(tr.strategy(name)) == name
    assert method_of(tr.strategy("evit")) == "gtp"
