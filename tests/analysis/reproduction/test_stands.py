"""Which models run which experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenred.analysis.reproduction.experiments import BACKBONES, EXPERIMENTS
from tokenred.analysis.reproduction.stands import choose_stands
from tokenred.core.errors import ConfigError, UnknownNameError

TABLE1, TABLE6 = EXPERIMENTS["table1"], EXPERIMENTS["table6"]


def test_the_papers_own() -> None:
    stands = choose_stands(None, {}, weights=True, chosen=[TABLE1])
    found = stands.of(TABLE1)
    assert [stand.name for stand in found] == list(TABLE1.backbones)
    assert all(stand.is_own for stand in found)
    # LV-ViT's weights are the user's to download.
    assert [bool(stand.owed) for stand in found] == [False, False, True, True]
    assert "--checkpoint LV-ViT-S=" in found[2].owed


def test_by_either_name() -> None:
    for name in ("deit-b", "DeiT-B", BACKBONES["DeiT-B"].spec, "deit_base_patch16_224"):
        (stand,) = choose_stands([name], {}, weights=True, chosen=[TABLE1]).of(TABLE1)
        assert (stand.name, stand.is_own) == ("DeiT-B", True)


def test_weights_of_ones_own(tmp_path: Path) -> None:
    files = {"lvvit_s": tmp_path / "a.pth"}
    (stand,) = choose_stands(["LV-ViT-S"], files, weights=True, chosen=[TABLE1]).of(TABLE1)
    assert stand.owed == ""
    assert stand.model == {"spec": "lvvit_s", "checkpoint": str(tmp_path / "a.pth")}
    with pytest.raises(UnknownNameError, match="DeiT-S"):
        choose_stands(["DeiT-B"], {"DeiT-S": "x"}, weights=True, chosen=[TABLE1])


def test_costs_need_no_weights() -> None:
    stands = choose_stands(None, {}, weights=False, chosen=[TABLE1])
    assert all(not s.owed and s.model["pretrained"] is False for s in stands.of(TABLE1))


def test_another_model_stands_in_for_the_first() -> None:
    stands = choose_stands(["digits"], {}, weights=True, chosen=[TABLE1, TABLE6])
    for experiment, backbone in ((TABLE1, "DeiT-S"), (TABLE6, "ViT-B-Patch8")):
        (stand,) = stands.of(experiment)
        assert (stand.name, stand.backbone, stand.is_own) == ("digits", backbone, False)
        assert (stand.scale.tokens, stand.scale.depth) == (64, 8)


def test_refused() -> None:
    with pytest.raises(ConfigError, match="none of the models"):
        choose_stands(["DeiT-B"], {}, weights=True, chosen=[TABLE6])
    with pytest.raises(UnknownNameError, match="nothing"):
        choose_stands(["nothing"], {}, weights=True, chosen=[TABLE1])
