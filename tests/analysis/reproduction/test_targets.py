"""Which models run which experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenred.analysis.reproduction.experiments import BACKBONES, EXPERIMENTS
from tokenred.analysis.reproduction.targets import Target, choose_targets, targets_of
from tokenred.core.errors import ConfigError, UnknownNameError

TABLE1, TABLE6 = EXPERIMENTS["table1"], EXPERIMENTS["table6"]


def _of_table1(models: list[str] | None, weights: bool = True, **files: str | Path) -> list[Target]:
    return targets_of(TABLE1, choose_targets(models, files, weights=weights, chosen=[TABLE1]))


def test_the_papers_own() -> None:
    found = _of_table1(None)
    assert [target.name for target in found] == list(TABLE1.backbones)
    assert all(target.is_own for target in found)
    # LV-ViT's weights are the user's to download.
    assert [bool(target.owed) for target in found] == [False, False, True, True]
    assert "--checkpoint LV-ViT-S=" in found[2].owed
    # Costs need none.
    assert all(not t.owed and t.model["pretrained"] is False for t in _of_table1(None, False))


@pytest.mark.parametrize(
    "name", ["deit-b", "DeiT-B", BACKBONES["DeiT-B"].spec, "deit_base_patch16_224"]
)
def test_by_either_name(name: str) -> None:
    (target,) = _of_table1([name])
    assert (target.name, target.is_own) == ("DeiT-B", True)


def test_weights_of_ones_own(tmp_path: Path) -> None:
    (target,) = _of_table1(["LV-ViT-S"], lvvit_s=tmp_path / "a.pth")
    assert target.owed == ""
    assert target.model == {"spec": "lvvit_s", "checkpoint": str(tmp_path / "a.pth")}


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


def test_refused() -> None:
    with pytest.raises(UnknownNameError, match="DeiT-S"):
        _of_table1(["DeiT-B"], **{"DeiT-S": "x"})
    with pytest.raises(ConfigError, match="none of the models"):
        choose_targets(["DeiT-B"], {}, weights=True, chosen=[TABLE6])
    with pytest.raises(UnknownNameError, match="nothing"):
        _of_table1(["nothing"])
