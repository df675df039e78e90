"""The table of experiments."""

from __future__ import annotations

import pytest
import timm

from tokenred.analysis.reproduction.experiments import BACKBONES, EXPERIMENTS, choose_experiments
from tokenred.analysis.reproduction.published import entries
from tokenred.core.errors import ConfigError, UnknownNameError


def test_every_published_table_is_an_experiment() -> None:
    covered = {
        (table, name)
        for experiment in EXPERIMENTS.values()
        if experiment.judged
        for table in experiment.tables
        for name in experiment.backbones
    }
    assert covered >= {(entry.table, entry.backbone) for entry in entries()}


@pytest.mark.parametrize("name", BACKBONES)
def test_timm_has_the_models(name: str) -> None:
    spec = BACKBONES[name].spec
    assert timm.is_model(spec.partition(".")[0])
    # Where timm has no weights, the table says which file has them.
    assert bool(BACKBONES[name].weights) != (spec in timm.list_pretrained())


def test_backbones_are_known() -> None:
    for experiment in EXPERIMENTS.values():
        assert set(experiment.backbones) <= set(BACKBONES)
        assert bool(experiment.tables) + bool(experiment.axes) + bool(experiment.follow) == 1


def test_choosing() -> None:
    assert choose_experiments(None) == list(EXPERIMENTS.values())
    assert [e.name for e in choose_experiments(["Table 5", "figure5"])] == ["figure5", "table5"]
    with pytest.raises(UnknownNameError, match="table9"):
        choose_experiments(["table9"])
    with pytest.raises(ConfigError, match="none"):
        choose_experiments([])
