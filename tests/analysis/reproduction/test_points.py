"""The cells of experiments beside the published rows."""

from __future__ import annotations

import pytest

from tokenred.analysis.reproduction.experiments import EXPERIMENTS
from tokenred.analysis.reproduction.points import Scale, points_of
from tokenred.analysis.reproduction.published import entries
from tokenred.strategies.strategy import Strategy, from_config

PAIRS = [(e, b) for e in EXPERIMENTS.values() for b in e.backbones if not e.follow]


@pytest.mark.parametrize(("experiment", "backbone"), PAIRS, ids=lambda v: getattr(v, "name", v))
def test_every_row_is_run_or_owed(experiment, backbone) -> None:  # type: ignore[no-untyped-def]
    points = points_of(experiment, backbone)
    rows = [row for table in experiment.tables for row in entries(table, backbone)]
    assert len(points) == len(rows) or experiment.axes
    for point in points:
        assert bool(point.cells) != bool(point.owed)
        for cell in point.cells:
            if cell["base"] != "dense":
                values = {k: v for k, v in cell.items() if k != "base"}
                assert isinstance(from_config({"recipe": cell["base"], **values}), Strategy)


def _by_label(name: str, backbone: str) -> dict:  # type: ignore[type-arg]
    return {point.label: point for point in points_of(EXPERIMENTS[name], backbone)}


def test_settings_are_those_of_the_paper() -> None:
    deit_b = _by_label("table1", "DeiT-B")["gtp:P=3,theta=0.9,alpha=0.4"]
    assert deit_b.published == {
        "top1": 81.8, "gmacs": 15.9, "loss": 0.0, "speedup": pytest.approx(432.3 / 408.8)
    }  # fmt: skip
    assert _by_label("table1", "LV-ViT-S")["gtp:P=3"].cells == ({"base": "gtp", "P": 3},)
    (cell,) = _by_label("table4", "DeiT-S")["gtp:P=8,theta=0.6,graph=spatial"].cells
    assert cell["graph"] == "spatial"
    *_, released = points_of(EXPERIMENTS["release-notes"], "DeiT-B")
    assert released.published["top1"] == 80.11
    assert released.cells[0] == {
        "base": "gtp", "P": 14, "theta": 0.8, "alpha": 0.3, "graph": "mixed",
        "proportional_attention": True, "reference": True,
    }  # fmt: skip


def test_the_best_theta_is_one_of_several_cells() -> None:
    best = _by_label("table5", "DeiT-S")["gtp:P=8,log_s=False, best θ"]
    assert [cell["theta"] for cell in best.cells] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert not any(cell["proportional_attention"] for cell in best.cells)
    plain = _by_label("table5", "DeiT-S")["gtp:P=8,theta=1.0,log_s=False"]
    assert plain.published["top1"] == 79.2


def test_what_is_owed_says_why() -> None:
    points = _by_label("table2", "DeiT-S")
    tuned = points["gtp:P=8,theta=0.6, fine-tuned"]
    assert tuned.command.startswith("tokenred finetune --model deit_small_patch16_224.fb_in1k")
    assert "gtp:P=8,theta=0.6" in tuned.command
    assert "trained" in points["dynamicvit at 3.5 GMACs"].owed
    assert "does not print" in points["ats at 3 GMACs"].owed
    assert points["tome:r=16"].published["gmacs"] == 2.3


def test_another_model_has_scaled_counts_and_no_figures() -> None:
    scale = Scale(tokens=64, depth=8)
    points = points_of(EXPERIMENTS["table1"], "DeiT-S", scale)
    assert [p.cells[0].get("P") for p in points] == [None, 1, 2, 3, 4, 5, 6, 7]
    assert not any(p.published or p.owed for p in points)
    many = points_of(EXPERIMENTS["table6"], "ViT-B-Patch8", scale)
    assert {p.cells[0].get("r") for p in many} == {None, 1, 2, 4, 5, 6}
    (first, *rest) = points_of(EXPERIMENTS["figure5"], "DeiT-S", scale)
    assert first.cells == ({"base": "dense"},)
    assert {p.cells[0]["P"] for p in rest} == {2, 4, 5, 7}


@pytest.mark.parametrize(("tokens", "depth"), [(64, 8), (16, 12), (13, 12), (1024, 40)])
def test_scaled_counts_can_be_met(tokens: int, depth: int) -> None:
    scale = Scale(tokens, depth)
    for P in range(1, 17):
        assert 1 <= scale.count(P, "DeiT-S") <= (tokens - 1) // depth
    assert scale.count(0, "DeiT-S") == 0
