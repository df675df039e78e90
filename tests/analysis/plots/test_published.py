"""Published points, tidy and wide."""

from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis import read_published
from tokenred.analysis.plots.published import GTP_PAPER, dense_point
from tokenred.core.errors import InputError


def test_a_point_has_all_its_numbers_and_none_is_lost() -> None:
    points = read_published(GTP_PAPER, table=1, backbone="deit-s")
    assert points["P"].tolist() == list(range(15))
    eight = points[points["P"] == 8].iloc[0]
    assert (eight["top1"], eight["gmacs"], eight["images_per_second"]) == (79.5, 3.4, 1581.9)
    assert eight["device"] == "a6000"
    tidy = pd.read_csv(GTP_PAPER)
    tops = (tidy["metric"] == "top1_percent").sum()
    assert read_published(GTP_PAPER)["top1"].notna().sum() == tops


def test_a_cost_and_a_speed_printed_once_belong_to_both() -> None:
    points = read_published(GTP_PAPER, table=2, method=["evit"])
    assert points["gmacs"].tolist() == [3.5, 3.5, 3.0, 3.0, 2.6, 2.6, 2.3, 2.3]
    assert points["images_per_second"].notna().all()
    off_the_shelf = read_published(GTP_PAPER, table=2, method="evit", finetuned=False)
    assert off_the_shelf["top1"].tolist() == [79.2, 78.5, 76.8, 74.1]


def test_wide_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("model,method,gmacs,top1\nDeiT-S,dense,4.6,79.8\nDeiT-S,gtp,3.4,79.5\n")
    points = read_published(path)
    assert points["backbone"].tolist() == ["DeiT-S", "DeiT-S"]
    assert dense_point(points, "DeiT-S")["gmacs"] == 4.6  # type: ignore[index]
    assert dense_point(points, "DeiT-B") is None
    # Dense may be the row that removes nothing.
    assert dense_point(read_published(GTP_PAPER), "LV-ViT-S")["top1"] == 83.3  # type: ignore[index]


def test_refused() -> None:
    with pytest.raises(InputError, match=r"no row has backbone=DeiT-T; .*DeiT-S"):
        read_published(GTP_PAPER, backbone="DeiT-T")
    with pytest.raises(InputError, match="the values of table"):
        read_published(GTP_PAPER, table=9)
    with pytest.raises(InputError, match="needs the column backbone"):
        read_published(pd.DataFrame([{"top1": 1}]))
