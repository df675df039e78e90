"""``compare``, ``bench``, ``agreement`` and ``oversmoothing`` on the embedded model and data."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tokenred.analysis import Store
from tokenred.cli import measuring

FEW = ("--limit", 6, "--batch-size", 6)
BENCH = ("bench", "-n", "1,2", "--pairs", 2, "-s", "gtp:P=4", "-s", "tome@0.7")
PNG = b"\x89PNG"

# ---------------------------------------------------------------- compare


def test_compare_writes_table_csv_and_picture(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("compare", *FEW, "--pairs", 2, "-s", "gtp:P=4", "-s", "tome@0.7", "--out", "new/out")
    result = run(*words)
    assert result.exit_code == 0, result.output
    for told in ("digits on digits", "gtp:P=4", "tome@0.7", "6 images", "points wide"):
        assert told in result.stdout
    folder = Path("new/out")
    names = pd.read_csv(folder / "comparison.csv")["strategy"]
    assert names.tolist() == ["dense", "gtp:P=4", "tome@0.7"]
    assert (folder / "tradeoff.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.csv", "tradeoff.png"]
    assert "Written: new/out/comparison.csv, new/out/tradeoff.png" in result.stdout
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run(*words, "--overwrite", "--no-timing")
    assert narrow.exit_code == 0, narrow.output
    assert max(map(len, narrow.stdout.splitlines())) <= 80


def test_budgets_baselines_and_a_corrupt_image(run: Run) -> None:
    for label in range(10):
        folder = Path("images", str(label))
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "a.png")
    Path("images/4/torn.png").write_bytes(b"torn")
    result = run("compare", "--no-timing", "--data", "images", "--model", "digits", "-s", "evit",
                 "-b", 0.9, "-b", 0.6, "--baselines", "--channels-last")  # fmt: skip
    assert result.exit_code == 0, result.output
    for words in ("evit@0.9", "evit@0.6", "resolution@0.6", "depth@0.6", "uniform@0.6",
                  "10 images", "Skipped: 1 unreadable image: ", "torn.png"):  # fmt: skip
        assert words in result.stdout, words


def test_speed_only(run: Run) -> None:
    result = run("compare", "--pairs", 2, "--random-weights", "-s", "evit", "--batch-size", 4)
    assert result.exit_code == 0, result.output
    assert "random weights" in result.stdout
    assert "top-1" not in result.stdout
    assert [path.name for path in Path("tokenred-out").iterdir()] == ["comparison.csv"]


def test_demo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_DEIT", "test_vit")  # a tiny model for DeiT-S
    few = ("compare", "--demo", "--limit", 10, "--batch-size", 5, "--pairs", 2)
    folder = Path("tokenred-out/demo")
    folder.mkdir(parents=True)
    (folder / "comparison.csv").write_text("an earlier run")
    result = run(*few)
    assert result.exit_code == 0, result.output
    for words in ("What 10 images can tell", "random weights", "gtp:P=8"):
        assert words in result.stdout
    assert result.stdout.startswith("The bundled digits are too easy to rank methods")
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.csv", "deit_small_speed.csv", "tradeoff.png",
    ]  # fmt: skip
    assert "top1" not in pd.read_csv(folder / "deit_small_speed.csv")
    # Its own folder it may replace; a folder that the user names it may not.
    assert run(*few, "--out", folder).exit_code == 2


# ---------------------------------------------------------------- bench


def test_bench_goes_on_behind_an_earlier_run_and_draws_it_again(run: Run) -> None:
    few = ("bench", "-n", 1, "--pairs", 2, "-s", "gtp:P=4", "-o", "out")
    result = run(*few, "--split", "--threads", 1)
    assert result.exit_code == 0, result.output
    folder = Path("out")
    frame = pd.read_csv(folder / "results.csv")
    assert frame["split_mlp"].gt(0).all()
    assert (folder / "break_even.png").read_bytes().startswith(PNG)

    told = run(*few).refusal
    assert "Pass --overwrite to replace it, --resume to continue the run that wrote it, or" in told
    again = run(*few, "-n", 4, "--split", "--threads", 1, "--resume")
    assert again.exit_code == 0, again.output
    more = pd.read_csv(folder / "results.csv")
    assert len(more) == 2 * len(frame)
    assert more["speedup"].head(len(frame)).tolist() == frame["speedup"].tolist()
    assert run(*few, "--overwrite").exit_code == 0
    assert len(pd.read_csv(folder / "results.csv")) == len(frame)

    Path("out/results.db").rename("earlier.db")
    drawn = run("bench", "--chart", "earlier.db")
    assert drawn.exit_code == 0, drawn.output
    assert "gtp:P=4" in drawn.stdout
    assert Path("earlier.png").read_bytes().startswith(PNG)
    assert "--overwrite" in run("bench", "--chart", "earlier.db").refusal
    assert run("bench", "--chart", "earlier.db", "--output", "there").exit_code == 0
    assert Path("there/break_even.png").is_file()


def test_a_store_of_one_s_own_is_kept(run: Run) -> None:
    words = ("compare", "--no-timing", "--limit", 4, "-s", "topk", "--store", "kept.db")
    assert run(*words).exit_code == 0
    with Store("kept.db", readonly=True) as store:
        assert len(store) == 2
    assert not Path("tokenred-out", "comparison.db").exists()


def test_a_dry_run_writes_nothing(run: Run) -> None:
    result = run(*BENCH, "--image-size", 33, "--image-size", 32, "--image-size", "32x64", "--dtype",
                 "bfloat16", "--compile", "no", "--compile", "yes", "--dry-run")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.count("To do: ") == 16
    for words in ("Not possible: ", "32x64", "bfloat16", "compile"):
        assert words in result.stdout
    assert not list(Path().iterdir())


def test_a_failed_cell_shows_and_the_rest_is_written(run: Run, moody: tuple[str, ...]) -> None:
    Path("full").touch()
    result = run(*BENCH, *moody, "-s", "topk:scorer=Moody")
    assert result.exit_code == 1
    assert "Out of memory: digits, topk:scorer=Moody, batch 2" in result.stdout
    frame = pd.read_csv("tokenred-out/bench/results.csv")
    assert len(frame[frame["speedup"].notna()]) == 5


# ---------------------------------------------------------------- block by block


def test_agreement(run: Run) -> None:
    few = ("agreement", "--limit", 6, "-s", "gtp", "-s", "topk", "-o", "out")
    result = run(*few, "-P", 3)
    assert result.exit_code == 0, result.output
    for words in ("(40 tokens): digits on digits", "by chance", "6 images"):
        assert words in result.stdout
    assert set(pd.read_csv("out/agreement.csv")["statistic"]) == {"iou", "survival", "scores"}
    first = Path("out/agreement.png").read_bytes()
    assert first.startswith(PNG)
    again = run(*few, "--statistic", "survival", "--layer", 7, "--overwrite")
    assert again.exit_code == 0, again.output
    assert Path("out/agreement.png").read_bytes() != first


def test_oversmoothing(run: Run) -> None:
    result = run("oversmoothing", *FEW, "-s", "gtp", "-s", "evit", "--output", "new/out")
    assert result.exit_code == 0, result.output
    for words in ("digits on digits", "dense", "evit", "6 images", "cosine similarity"):
        assert words in result.stdout
    frame = pd.read_csv("new/out/oversmoothing.csv")
    assert list(dict.fromkeys(frame["strategy"])) == ["dense", "gtp", "evit"]
    assert Path("new/out/oversmoothing.png").read_bytes().startswith(PNG)
    shares = frame.groupby("strategy")["gmacs"].first()
    assert shares["gtp"] / shares["dense"] == pytest.approx(0.75, abs=0.02)

    own = run("oversmoothing", *FEW, "-s", "gtp:P=2", "--share", 1)
    assert own.exit_code == 0, own.output
    frame = pd.read_csv("tokenred-out/oversmoothing/oversmoothing.csv")
    assert frame[frame["strategy"] == "gtp:P=2"]["tokens"].min() == 64 - 16


def test_a_class_map(run: Run) -> None:
    for name in ("three", "seven"):
        Path("images", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"images/{name}/a.png")
    Path("map.json").write_text('{"three": 3, "seven": 7}')
    words = ("compare", "-s", "topk", "--no-timing", "--no-progress", "--data", "images",
             "--model", "digits")  # fmt: skip
    assert "expected 10 classes" in run(*words).refusal
    Path("list.json").write_text("[3, 7]")
    assert "NAME" in run(*words, "--class-map", "list.json").refusal
    result = run(*words, "--class-map", "map.json")
    assert result.exit_code == 0, result.output
    assert "Accuracy: 2 images" in result.stdout
