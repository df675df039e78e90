"""`reproduce` from end to end on the embedded model, and the GMACs of the paper's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.reports.pages import check_page
from tests.shared import shared_path
from tokenred.analysis import Reproduction, Store, reproduce
from tokenred.analysis.reproduction.experiments import EXPERIMENTS
from tokenred.core.errors import (
    ConfigError,
    DataError,
    OutputBusyError,
    OutputExistsError,
    UnknownNameError,
)
from tokenred.core.lock import output_lock
from tokenred.data import open_dataset

FEW = ("table6", "figure6")


def _demo(place: Path) -> Reproduction:
    return reproduce(
        demo=True, output=place, experiments=FEW, limit=4, batch_size=4, progress=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduction")


@pytest.fixture(scope="module")
def demo(place: Path) -> Reproduction:
    return _demo(place)


def test_the_demo_measures_and_judges_nothing(demo: Reproduction, place: Path) -> None:
    frame = demo.frame
    assert set(frame["experiment"]) == set(FEW)
    assert set(frame["model"]) == {"digits"}
    assert set(frame["verdict"]) == {"–"}
    assert frame["published"].isna().all()
    assert frame["ours"].notna().all()
    assert {"gmacs", "top1", "loss", "cosine"} == set(frame["metric"])
    assert demo.images == 4
    assert "no published figures" in str(demo)
    assert len(pd.read_csv(place / "reproduction.csv", keep_default_na=False)) == len(frame)
    page = check_page((place / "reproduction.html").read_text())
    # One picture an experiment, and what is in the store.
    assert len(page.pictures) == 2
    assert [row[0] for row in page.tables[0][1:]] == sorted(FEW, key=list(EXPERIMENTS).index)
    cells = next(t for t in page.tables if "strategy" in t[0] and "image tokens" in t[0])
    assert len(cells) == 1 + len(Store(place / "results.db", readonly=True))


def test_the_second_start_computes_nothing(demo: Reproduction, place: Path) -> None:
    with Store(place / "results.db", readonly=True) as store:
        before = [(row["key"], row["created"], row["seconds"]) for row in store.rows()]
    (followed,) = place.glob("figure6-*.csv")
    written = followed.stat().st_mtime_ns
    columns = ["strategy", "metric", "ours", "low", "high"]
    pd.testing.assert_frame_equal(_demo(place).frame[columns], demo.frame[columns])
    with Store(place / "results.db", readonly=True) as store:
        assert [(row["key"], row["created"], row["seconds"]) for row in store.rows()] == before
        assert {row["study"] for row in store.rows()} == {"table6"}
    assert followed.stat().st_mtime_ns == written
    # Every strategy is followed at the same cost; other images are another file.
    costs = pd.read_csv(followed).groupby("strategy")["gmacs"].first()
    assert (costs.drop("dense") / costs["dense"] <= 0.75).all()
    reproduce(demo=True, output=place, experiments=["figure6"], limit=2, progress=False)
    assert len(list(place.glob("figure6-*.csv"))) == 2


def test_the_papers_costs(tmp_path: Path) -> None:
    done = reproduce(
        costs=True, output=tmp_path, models=["DeiT-S"], experiments=["table1", "table2"]
    )
    costs = done.frame[done.frame["metric"] == "gmacs"]
    of_table1 = costs[costs["experiment"] == "table1"]
    assert len(of_table1) == 15
    assert set(of_table1["verdict"]) == {"✓"}
    assert (of_table1["ours"] - of_table1["published"]).abs().max() < 0.16
    assert costs.loc[costs["experiment"] == "table2", "verdict"].tolist() == ["✓"] * 12
    assert set(done.frame.loc[done.frame["metric"] == "top1", "verdict"]) == {"not run"}
    assert done.differing.empty
    assert not (tmp_path / "results.db").exists()


def test_a_subset_of_images_and_weights_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that cannot be downloaded are reported as not run, and the other models still run."""
    images = shared_path("data", "imagenet-sample-250.zip")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    told: list[str] = []
    done = reproduce(
        images, tmp_path, models=["DeiT-S", "LV-ViT-S"], experiments=["table1"], limit=4,
        progress=False, tell=told.append,
    )  # fmt: skip
    assert set(done.frame["verdict"]) == {"not run"}
    why = done.frame.groupby("model")["why"].first()
    assert "published weights" in why["DeiT-S"]
    assert "--checkpoint LV-ViT-S=" in why["LV-ViT-S"]
    assert any("published weights" in line for line in told)
    assert done.images == 4
    check_page((tmp_path / "reproduction.html").read_text())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "imagenet=PATH"),
        ({"demo": True, "costs": True}, ConfigError, "one of"),
        ({"demo": True, "models": ["DeiT-S"]}, ConfigError, "models"),
        ({"demo": True, "quick": True, "limit": 3}, ConfigError, "quick"),
        ({"costs": True, "quick": True}, ConfigError, "images"),
        ({"demo": True, "limit": 0}, ConfigError, "limit"),
        ({"demo": True, "experiments": ["table9"]}, UnknownNameError, "table9"),
        ({"demo": True, "experiments": []}, ConfigError, "empty list"),
        ({"imagenet": "/nowhere"}, DataError, "nowhere"),
    ],
)
def test_refused(options, error, message, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        reproduce(output=tmp_path, progress=False, **options)
    assert not list(tmp_path.iterdir())


def test_others_files_and_folders_in_use_are_left_alone(tmp_path: Path) -> None:
    def other() -> None:
        with pytest.raises(OutputBusyError):
            reproduce(costs=True, output=tmp_path, models=["DeiT-S"], experiments=["table2"])

    with output_lock(tmp_path), ThreadPoolExecutor(1) as threads:
        threads.submit(other).result()
    (tmp_path / "reproduction.csv").write_text("mine")
    with pytest.raises(OutputExistsError):
        reproduce(demo=True, output=tmp_path, experiments=["table6"], progress=False)
    assert (tmp_path / "reproduction.csv").read_text() == "mine"


def test_an_earlier_run_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "results.db").write_text("of an earlier run")
    (tmp_path / "reproduction.csv").write_text("old")
    reproduce(
        output=tmp_path, experiments=["Table 4"], models=["digits"], costs=True, overwrite=True
    )
    assert not (tmp_path / "results.db").exists()
    assert "old" not in (tmp_path / "reproduction.csv").read_text()


def test_the_class_map_of_the_images_counts(tmp_path: Path) -> None:
    digits = open_dataset("digits")
    for label in (3, 8):
        folder = tmp_path / "images" / f"digit {label}"
        folder.mkdir(parents=True)
        digits.source.image(digits.labels.index(label)).save(folder / "a.png")

    def top1(three: int, eight: int) -> set[float]:
        done = reproduce(
            tmp_path / "images", tmp_path / "out", models=["digits"], experiments=["table6"],
            class_map={"digit 3": three, "digit 8": eight}, progress=False,
        )  # fmt: skip
        return set(done.frame.loc[done.frame["metric"] == "top1", "ours"])

    assert 100 in top1(3, 8)
    assert top1(8, 3) == {0}
