"""The table of experiments, their rows beside the published ones, and the models they run on."""

from pathlib import Path

import pandas as pd
import pytest
import timm

from tokenred.analysis.plots.published import GTP_PAPER
from tokenred.analysis.reproduction.experiments import (
    BACKBONES,
    EXPERIMENTS,
    Claim,
    Experiment,
    Target,
    choose_targets,
    claims_of,
    published_rows,
    targets_of,
)
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.strategies.specs import parse_spec
from tokenred.strategies.strategy import Strategy, from_config

PAIRS = [(e, b) for e in EXPERIMENTS.values() for b in e.backbones if not e.follow]
TABLE1, TABLE6 = EXPERIMENTS["table1"], EXPERIMENTS["table6"]


def _claims(name: str, backbone: str, tokens: int = 0, depth: int = 0) -> dict[str, Claim]:
    target = Target(backbone, backbone, {}, tokens, depth)
    return {claim.label: claim for claim in claims_of(EXPERIMENTS[name], target)}


def test_every_published_table_and_number_is_in_an_experiment() -> None:
    covered = {
        (table, name)
        for experiment in EXPERIMENTS.values()
        if experiment.judged
        for table in experiment.tables
        for name in experiment.backbones
    }
    assert covered >= {(row["table"], row["backbone"]) for row in published_rows()}
    for e in EXPERIMENTS.values():
        assert set(e.backbones) <= set(BACKBONES)
        assert sum(map(bool, (e.tables, e.axes, e.follow, e.rows))) == 1
    tidy = pd.read_csv(GTP_PAPER)
    found = {v for row in published_rows() for v in row.values() if isinstance(v, float)}
    assert len(tidy) > 400
    assert set(tidy["value"]) <= found


def test_timm_has_the_models() -> None:
    for backbone in BACKBONES.values():
        assert timm.is_model(backbone.spec.partition(".")[0])
        # Where timm has no weights, the table says which file has them.
        assert bool(backbone.weights) != (backbone.spec in timm.list_pretrained())


@pytest.mark.parametrize(("experiment", "backbone"), PAIRS, ids=lambda v: getattr(v, "name", v))
def test_every_row_is_run_or_explained(experiment: Experiment, backbone: str) -> None:
    claims = claims_of(experiment, Target(backbone, backbone, {}))
    rows = [row for table in experiment.tables for row in published_rows(table, backbone)]
    rows += [row for row in experiment.rows if row["backbone"] == backbone]
    assert len(claims) == len(rows) or experiment.axes
    for claim in claims:
        assert bool(claim.cells) != bool(claim.why_not)
        for cell in claim.cells:
            if cell["base"] != "dense":
                values = {k: v for k, v in cell.items() if k != "base"}
                spec = parse_spec(cell["base"])
                config = {"recipe": spec.method, **values}
                assert isinstance(from_config(config) if values else spec.strategy, Strategy)


def test_settings_are_those_of_the_paper_and_losses_from_its_dense_row() -> None:
    newer = _claims("newer", "DeiT-S")
    assert newer["diffrate"].published == {"top1": 79.54, "gmacs": 2.9, "loss": -0.26}
    assert newer["mctf:r=16"].published == {"top1": 78.17, "loss": -1.63}
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
    best = _claims("table5", "DeiT-S")["gtp:P=8,log_s=False, best θ"]
    assert [cell["theta"] for cell in best.cells] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert not any(cell["proportional_attention"] for cell in best.cells)
    plain = _claims("table5", "DeiT-S")["gtp:P=8,theta=1.0,log_s=False"]
    assert plain.published["top1"] == 79.2


def test_what_is_missing_says_why() -> None:
    claims = _claims("table2", "DeiT-S")
    tuned = claims["gtp:P=8,theta=0.6, fine-tuned"]
    assert tuned.command.startswith("tokenred finetune --model deit_small_patch16_224.fb_in1k")
    assert "gtp:P=8,theta=0.6" in tuned.command
    assert "trained" in claims["dynamicvit at 3.5 GMACs"].why_not
    assert "does not print" in claims["ats at 3 GMACs"].why_not
    assert claims["tome:r=16"].published["gmacs"] == 2.3


def test_another_model_has_scaled_counts_and_no_figures() -> None:
    assert not any(claim.published for claim in _claims("newer", "DeiT-S", 64, 8).values())
    claims = _claims("table1", "DeiT-S", 64, 8).values()
    assert [claim.cells[0].get("P") for claim in claims] == [None, 1, 2, 3, 4, 5, 6, 7]
    assert not any(claim.published or claim.why_not for claim in claims)
    many = _claims("table6", "ViT-B-Patch8", 64, 8).values()
    assert {claim.cells[0].get("r") for claim in many} == {None, 1, 2, 4, 5, 6}
    first, *rest = _claims("figure5", "DeiT-S", 64, 8).values()
    assert first.cells == ({"base": "dense"},)
    assert {claim.cells[0]["P"] for claim in rest} == {2, 4, 5, 7}


# ---------------------------------------------------------------- models


def _of_table1(models: list[str] | None, weights: bool = True, **files: str | Path) -> list[Target]:
    return targets_of(TABLE1, choose_targets(models, files, weights=weights, chosen=[TABLE1]))


def test_the_papers_own_models(tmp_path: Path) -> None:
    found = _of_table1(None)
    assert [target.name for target in found] == list(TABLE1.backbones)
    assert all(target.is_own for target in found)
    # LV-ViT's weights are the user's to download.
    assert [bool(target.why_not) for target in found] == [False, False, True, True]
    assert "--checkpoint LV-ViT-S=" in found[2].why_not
    # Costs need none.
    assert all(not t.why_not and t.model["pretrained"] is False for t in _of_table1(None, False))
    (target,) = _of_table1(["LV-ViT-S"], lvvit_s=tmp_path / "a.pth")
    assert target.why_not == ""
    assert target.model == {"spec": "lvvit_s", "checkpoint": str(tmp_path / "a.pth")}
    for name in ("deit-b", "DeiT-B", BACKBONES["DeiT-B"].spec, "deit_base_patch16_224"):
        (target,) = _of_table1([name])
        assert (target.name, target.is_own) == ("DeiT-B", True)


def test_another_model_stands_in_for_the_first() -> None:
    targets = choose_targets(["digits"], {}, weights=True, chosen=[TABLE1, TABLE6])
    for experiment, backbone in ((TABLE1, "DeiT-S"), (TABLE6, "ViT-B-Patch8")):
        (target,) = targets_of(experiment, targets)
        assert (target.name, target.backbone, target.is_own) == ("digits", backbone, False)
        assert (target.tokens, target.depth) == (64, 8)


@pytest.mark.parametrize(("tokens", "depth"), [(64, 8), (16, 12), (13, 12), (1024, 40)])
def test_scaled_counts_can_be_met(tokens: int, depth: int) -> None:
    target = Target("mine", "DeiT-S", {}, tokens, depth)
    for P in range(1, 17):
        assert 1 <= target.count(P) <= (tokens - 1) // depth
    assert target.count(0) == 0


def test_models_that_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="DeiT-S"):
        _of_table1(["DeiT-B"], **{"DeiT-S": "x"})
    with pytest.raises(ConfigError, match="none of the models"):
        choose_targets(["DeiT-B"], {}, weights=True, chosen=[TABLE6])
    with pytest.raises(UnknownNameError, match="nothing"):
        _of_table1(["nothing"])
