from __future__ import annotations

import pytest

import tokenred as tr
from tokenred.core.errors import ConfigError
from tokenred.models import load_model
from tokenred.training.optimise import freeze_backbone, make_optimizer, make_schedule
from tokenred.training.settings import Settings

SETTINGS = Settings(lr=1e-2, min_lr=0, backbone_lr=0.1, epochs=2, weight_decay=0.3)


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
def test_rates_of_backbone_and_learned_parts() -> None:
    model = tr.wrap(load_model("digits"), "dynamicvit")
    optimizer = make_optimizer(model, SETTINGS)
    schedule = make_schedule(optimizer, SETTINGS, 10)
    schedule.step_update(10)
    rates = {group["backbone"]: group["lr"] for group in optimizer.param_groups}
    assert rates[False] == pytest.approx(5e-3)
    assert rates[True] == pytest.approx(5e-4)
    seen = sum(len(group["params"]) for group in optimizer.param_groups)
    assert seen == len(list(model.parameters()))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay[id(model.head.weight)] == 0.3
    assert decay[id(model.head.bias)] == decay[id(model.pos_embed)] == 0
    freeze_backbone(optimizer)
    assert {group["lr"] for group in optimizer.param_groups if group["backbone"]} == {0.0}
    assert rates[False] in {group["lr"] for group in optimizer.param_groups}


def test_nothing_to_train() -> None:
    model = tr.wrap(load_model("digits"), "gtp").requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        make_optimizer(model, SETTINGS)
