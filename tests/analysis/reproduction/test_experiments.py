"""The table of experiments, and their rows beside the published ones."""

from __future__ import annotations

import csv

import pytest
import timm

from tokenred.analysis.plots.published import GTP_PAPER
from tokenred.analysis.reproduction.claims import Claim, claims_of, published_rows
from tokenred.analysis.reproduction.experiments import (
    BACKBONES,
    EXPERIMENTS,
    Experiment,
    choose_experiments,
)
from tokenred.analysis.reproduction.targets import Target
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.strategies.strategy import Strategy, from_config

PAIRS = [(e, b) for e in EXPERIMENTS.values() for b in e.backbones if not e.follow]


def _claims(name: str, backbone: str, tokens: int = 0, depth: int = 0) -> dict[str, Claim]:
    target = Target(backbone, backbone, {}, tokens, depth)
    return {claim.label: claim for claim in claims_of(EXPERIMENTS[name], target)}


def test_every_published_table_is_an_experiment() -> None:
    covered = {
        (table, name)
        for experiment in EXPERIMENTS.values()
        if experiment.judged
        for table in experiment.tables
        for name in experiment.backbones
    }
    assert covered >= {(row["table"], row["backbone"]) for row in published_rows()}
    for experiment in EXPERIMENTS.values():
        assert set(experiment.backbones) <= set(BACKBONES)
        assert bool(experiment.tables) + bool(experiment.axes) + bool(experiment.follow) == 1


@pytest.mark.parametrize("name", BACKBONES)
def test_timm_has_the_models(name: str) -> None:
    spec = BACKBONES[name].spec
    assert timm.is_model(spec.partition(".")[0])
    # Where timm has no weights, the table says which file has them.
    assert bool(BACKBONES[name].weights) != (spec in timm.list_pretrained())


def test_choosing() -> None:
    assert choose_experiments(None) == list(EXPERIMENTS.values())
    assert [e.name for e in choose_experiments(["Table 5", "figure5"])] == ["figure5", "table5"]
    with pytest.raises(UnknownNameError, match="table9"):
        choose_experiments(["table9"])
    with pytest.raises(ConfigError, match="empty list"):
        choose_experiments([])


def test_every_published_number_is_in_a_row() -> None:
    with GTP_PAPER.open(newline="", encoding="utf-8") as file:
        numbers = [(row["metric"], float(row["value"])) for row in csv.DictReader(file)]
    assert len(numbers) > 400
    found = [value for row in published_rows() for value in row.values()]
    assert {value for _, value in numbers} <= {v for v in found if isinstance(v, float)}
    tops = [value for metric, value in numbers if metric == "top1_percent"]
    assert sorted(row["top1"] for row in published_rows() if "top1" in row) == sorted(tops)


@pytest.mark.parametrize(("experiment", "backbone"), PAIRS, ids=lambda v: getattr(v, "name", v))
def test_every_row_is_run_or_owed(experiment: Experiment, backbone: str) -> None:
    claims = claims_of(experiment, Target(backbone, backbone, {}))
    rows = [row for table in experiment.tables for row in published_rows(table, backbone)]
    assert len(claims) == len(rows) or experiment.axes
    for claim in claims:
        assert bool(claim.cells) != bool(claim.owed)
        for cell in claim.cells:
            if cell["base"] != "dense":
                values = {k: v for k, v in cell.items() if k != "base"}
                assert isinstance(from_config({"recipe": cell["base"], **values}), Strategy)


def test_settings_are_those_of_the_paper() -> None:
    deit_b = _claims("table1", "DeiT-B")["gtp:P=3,theta=0.9,alpha=0.4"]
    assert deit_b.published == {
        "top1": 81.8, "gmacs": 15.9, "loss": 0.0, "speedup": pytest.approx(432.3 / 408.8)
    }  # fmt: skip
    assert _claims("table1", "LV-ViT-S")["gtp:P=3"].cells == ({"base": "gtp", "P": 3},)
    (cell,) = _claims("table4", "DeiT-S")["gtp:P=8,theta=0.6,graph=spatial"].cells
    assert cell["graph"] == "spatial"
    *_, released = _claims("release-notes", "DeiT-B").values()
    assert released.published["top1"] == 80.11
    assert released.cells[0] == {
        "base": "gtp", "P": 14, "theta": 0.8, "alpha": 0.3, "graph": "mixed",
        "proportional_attention": True, "reference": True,
    }  # fmt: skip


def test_the_best_theta_is_one_of_several_cells() -> None:
    best = _claims("table5", "DeiT-S")["gtp:P=8,log_s=False, best θ"]
    assert [cell["theta"] for cell in best.cells] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert not any(cell["proportional_attention"] for cell in best.cells)
    plain = _claims("table5", "DeiT-S")["gtp:P=8,theta=1.0,log_s=False"]
    assert plain.published["top1"] == 79.2


def test_what_is_owed_says_why() -> None:
    claims = _claims("table2", "DeiT-S")
    tuned = claims["gtp:P=8,theta=0.6, fine-tuned"]
    assert tuned.command.startswith("tokenred finetune --model deit_small_patch16_224.fb_in1k")
    assert "gtp:P=8,theta=0.6" in tuned.command
    assert "trained" in claims["dynamicvit at 3.5 GMACs"].owed
    assert "does not print" in claims["ats at 3 GMACs"].owed
    assert claims["tome:r=16"].published["gmacs"] == 2.3


def test_another_model_has_scaled_counts_and_no_figures() -> None:
    claims = _claims("table1", "DeiT-S", 64, 8).values()
    assert [claim.cells[0].get("P") for claim in claims] == [None, 1, 2, 3, 4, 5, 6, 7]
    assert not any(claim.published or claim.owed for claim in claims)
    many = _claims("table6", "ViT-B-Patch8", 64, 8).values()
    assert {claim.cells[0].get("r") for claim in many} == {None, 1, 2, 4, 5, 6}
    first, *rest = _claims("figure5", "DeiT-S", 64, 8).values()
    assert first.cells == ({"base": "dense"},)
    assert {claim.cells[0]["P"] for claim in rest} == {2, 4, 5, 7}
