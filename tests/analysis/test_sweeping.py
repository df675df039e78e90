"""A sweep keeps what it has, measures nothing twice, and goes on after a failure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import tokenred as tr
from tests.analysis.sweep_rows import make_row
from tokenred.analysis import Sweep, sweep
from tokenred.analysis.measure.split import LINES
from tokenred.analysis.study.database import StoreError
from tokenred.attention import pick_engine
from tokenred.core.errors import ConfigError, OutputExistsError, UnknownNameError

QUICK: dict[str, Any] = {"pairs": 2, "warmup": 0, "progress": False}
ONE = QUICK | {"batch_sizes": (1,)}
SPECS = ["topk", "tome:r=2"]
BENCHMARK = "tokenred.analysis.study.metrics.benchmark"


@pytest.fixture(scope="module")
def figures() -> tr.analysis.Benchmark:
    model = tr.models.load_model("digits")
    return tr.benchmark(tr.wrap(model, "topk"), batch_size=1, pairs=2, progress=False)


@pytest.fixture
def measured(figures: tr.analysis.Benchmark, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that were timed, in order; one figure for all, so that it is quick."""
    done: list[str] = []

    def once(models: Any, **options: Any) -> Any:
        (model,) = models.values()
        done.append(f"{type(model.strategy.fuser).__name__} {options['batch_size']}")
        return figures

    monkeypatch.setattr(BENCHMARK, once)
    return done


def test_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    found = sweep("digits", ["gtp:P=4"], path, batch_sizes=(2,), image_sizes=(None, 40),
                  dtypes=("float32", "bfloat16"), **QUICK)  # fmt: skip
    assert len(found.rows) == len(found.done) == 4
    assert [row["image_size"] for row in found.rows] == ["32x32"] * 2 + ["40x40"] * 2
    assert [row["tokens"][0] for row in found.rows] == [64, 64, 100, 100]
    assert [row["dtype"] for row in found.rows] == ["float32", "bfloat16"] * 2
    row = found.rows[0]
    assert row["gmacs"] == pytest.approx(
        tr.gmacs(tr.wrap(tr.models.load_model("digits"), tr.strategy("gtp", P=4)))
    )
    expected = {"key", "status", "model", "strategy", "method", "batch_size", "speedup_low",
                "realised", "overhead_gmacs", "processor", "threads", "torch", "seed", "created",
                "seconds", "pairs"}  # fmt: skip
    assert expected <= set(row)
    assert (row["pairs"], row["compile"]) == (2, "false")
    assert '"fuser": {"name": "propagate"' in row["config"]
    assert Sweep.read(path).rows == found.rows


def test_attention_engines_are_a_setting(
    figures: tr.analysis.Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def once(models: Any, **options: Any) -> Any:
        seen.append(next(iter(models.values())).engines)
        return figures

    monkeypatch.setattr(BENCHMARK, once)
    path = tmp_path / "r.db"
    sweep("digits", ["topk"], path, **ONE)
    found = sweep("digits", ["topk"], path, engines=("auto", "plain"), **ONE)
    # What was measured without naming it is the automatic choice.
    assert seen == [pick_engine("auto"), pick_engine("plain")]
    assert [row["engine"] for row in found.rows] == ["auto", "plain"]
    assert "plain" in str(found)
    dry = sweep("digits", ["topk"], engines=("auto", "plain"), dry_run=True, **ONE)
    assert [text.endswith("engine plain") for text in dry.todo] == [False, True]
    with pytest.raises(ConfigError, match="engines must be a list of one of"):
        sweep("digits", ["topk"], engines=("flash",), **ONE)


def test_memory_and_split_columns(measured: list[str]) -> None:
    found = sweep("digits", SPECS, memory=True, split=True, **ONE)
    for row in found.done:
        assert 0 < row["peak_bytes"] < 1.5 * row["dense_peak_bytes"]
        assert 0 <= row["split_choosing"] < 1
    for words in ("peak MiB", "outside PyTorch", "where the time goes"):
        assert words in str(found)


def test_nothing_is_measured_twice(tmp_path: Path, measured: list[str]) -> None:
    path = tmp_path / "r.db"
    first = sweep("digits", SPECS, path, batch_sizes=(1, 2), **QUICK)
    assert measured == ["Prune 1", "Merge 1", "Prune 2", "Merge 2"]
    again = sweep("digits", [*SPECS, "evit"], path, batch_sizes=(2, 1), **QUICK)
    assert measured[4:] == ["FusedToken 2", "FusedToken 1"]
    assert {row["key"] for row in first.rows} < {row["key"] for row in again.rows}
    assert len(Sweep.read(path).rows) == 6
    sweep("digits", SPECS, path, overwrite=True, **ONE)
    assert len(Sweep.read(path).rows) == 2
    # Other settings are other cells.
    del measured[:]
    threads = torch.get_num_threads()
    for change in ({"pairs": 3}, {"seed": 1}, {"threads": (threads + 1,)}):
        found = sweep("digits", ["topk"], path, **ONE | change)
    assert len(measured) == 3
    assert found.rows[0]["threads"] == threads + 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("random", [False, True])
def test_random_weights(measured: list[str], monkeypatch: pytest.MonkeyPatch, random: bool) -> None:
    asked = []
    real = tr.models.load_model
    monkeypatch.setattr(
        "tokenred.models.load_model", lambda *a, **k: (asked.append(k), real(*a, **k))[1]
    )
    sweep("digits", ["topk"], random_weights=random, **ONE)
    assert asked == [{"spec": "digits"} | ({"pretrained": False} if random else {})]


def test_it_goes_on_after_a_failure(
    tmp_path: Path, measured: list[str], figures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.db"
    errors = {1: RuntimeError("a kernel\nbroke"), 2: torch.OutOfMemoryError("CUDA: no room")}

    def fail(models: Any, **options: Any) -> Any:
        if options["batch_size"] in errors:
            raise errors[options["batch_size"]]
        measured.append("Prune 3")
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(BENCHMARK, fail)
        found = sweep("digits", ["topk"], path, batch_sizes=(1, 2, 3), **QUICK)
    assert [row["status"] for row in found.rows] == ["failed", "out of memory", "done"]
    assert found.rows[0]["error"].startswith("RuntimeError: a kernel\nbroke (test_sweeping.py")
    assert len(found.failures) == 2
    assert "Out of memory: digits, topk, batch 2" in str(found)
    assert "RuntimeError: a kernel broke" in str(found)
    # A failure is a result as well, until one wants to try again.
    assert len(sweep("digits", ["topk"], path, batch_sizes=(1, 2, 3), **QUICK).failures) == 2
    assert measured == ["Prune 3"]
    again = sweep("digits", ["topk"], path, batch_sizes=(1, 2, 3), retry=True, **QUICK)
    assert measured[1:] == ["Prune 1", "Prune 2"]
    assert not again.failures
    assert not Sweep.read(path).failures


def test_a_dry_run(tmp_path: Path, measured: list[str]) -> None:
    path = tmp_path / "r.db"
    sweep("digits", ["topk"], path, **ONE)
    found = sweep("digits", SPECS, path, image_sizes=(None, 33), devices=("cpu", "no-such"),
                  dry_run=True, **ONE)  # fmt: skip
    assert measured == ["Prune 1"]
    assert found.todo == ("digits, tome:r=2, batch 1, float32, cpu, images 32x32",)
    assert len(found.rows) == 1
    assert len(found.refused) == 6
    assert sum("expected a device of this machine" in why for _, why in found.refused) == 2
    text = str(found)
    assert "To do: digits, tome:r=2, batch 1" in text
    assert "and 3 more: expected an image size in multiples of the patch" in text


def test_the_compiler_starts_afresh_with_each_model(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: seen.append(len(measured)))
    for compiled in (False, True):
        sweep("digits", SPECS, image_sizes=(None, 40), compile=(compiled,), **ONE)
    assert seen == [6]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_sizes": (0,)}, ConfigError, "batch_size"),
        ({"pairs": 1}, ConfigError, "pairs"),
        ({"strategies": "topk"}, ConfigError, "strategies must be a list"),
        ({"strategies": ["nothing"]}, UnknownNameError, "nothing"),
        (
            {"strategies": ["gtp:P=30"]},
            ConfigError,
            "no cell .* can run; the first one, digits, gtp:P",
        ),
        ({"models": "vit_tinny_patch16_224"}, UnknownNameError, "unknown model"),
        ({"models": torch.nn.Identity()}, ConfigError, "names or paths of models"),
    ],
)
def test_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sweep(**{"models": "digits", "strategies": ["topk"], **QUICK, **change})


def test_places_that_are_refused(tmp_path: Path, measured: list[str]) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(StoreError, match="not a store"):
        sweep("digits", ["topk"], mine, **QUICK)
    with pytest.raises(StoreError, match="in an existing folder"):
        sweep("digits", ["topk"], tmp_path / "no" / "r.db", **QUICK)
    with pytest.raises(ConfigError, match="can run"):  # nothing is deleted for it
        sweep("digits", ["gtp:P=30"], mine, overwrite=True, **QUICK)
    assert measured == []
    assert mine.read_text() == "mine"


# ---------------------------------------------------------------- what is shown


def lines_of(*rows: Mapping[str, Any], refused: Any = ()) -> list[str]:
    return str(Sweep(tuple(rows), refused=tuple(refused))).splitlines()


def test_settings_that_vary_are_columns_and_the_others_the_title() -> None:
    title, _, header, first, second, *notes = lines_of(
        make_row("a"), make_row("b", dtype="bfloat16", pairs=3)
    )
    assert title.split() == ["vit,", "images", "224x224,", "cpu"]
    assert header.split()[0] == "dtype"
    assert first.split()[:3] == ["float32", "gtp:P=8", "8"]
    assert second.split()[0] == "bfloat16"
    for figure in ("3.000", "80.0", "1.20 [1.10, 1.30]", "1.33", "0.90 [0.82, 0.97]"):
        assert figure in first
    assert "peak" not in header
    assert notes[1].startswith("Speed: 3 to 15 pairs")


def test_parts_of_a_table_name_the_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = lines_of(make_row("a"), make_row("b", batch_size=64))
    heads = [line.split()[:2] for line in lines if line.startswith("strategy")]
    assert len(heads) > 1
    assert all(head == ["strategy", "batch"] for head in heads)


def test_failures_and_refusals() -> None:
    cell = "digits, gtp:P=4, batch 8, float32, cpu"
    refused = [(cell, "no such device"), ("another", "no such device"), (cell, "too small")]
    failed = make_row("b", status="out of memory", error="no room")
    lines = lines_of(make_row("a"), failed, refused=refused)
    assert lines[4].split() == ["gtp:P=8", "8", "out", "of", "memory"]
    assert "Out of memory: vit, gtp:P=8, batch 8, images 224x224: no room" in lines
    assert lines[-2:] == [
        f"Not possible: {cell} and 1 more: no such device", f"Not possible: {cell}: too small"
    ]  # fmt: skip


def test_what_a_strategy_does_not_read_is_told() -> None:
    unused = "graph: not read by Prune"
    found = Sweep((make_row("a", unused=unused), make_row("b", unused=unused, batch_size=1)))
    assert found.footnotes()[4] == "graph: not read by Prune: gtp:P=8."
    assert "not read by Prune" in found._repr_html_()


def test_the_split_has_a_column_for_each_line_that_took_time() -> None:
    shares = {f"split_{name}": 0.0 for name in LINES}
    shares |= {"split_mlp": 0.5, "split_attention": 0.46, "split_graph": 0.04}
    more = {"split_choosing": 0.04, "split_cost_of_looking": 0.013}
    lines = lines_of(make_row("a", **shares, **more), make_row("b"))
    at = next(i for i, line in enumerate(lines) if "where the time goes" in line)
    assert lines[at + 3].split() == ["gtp:P=8", "8", "46.0%", "4.0%", "50.0%", "4.0%", "+1.3%"]
    assert not {"whole", "embed,"} & set(" ".join(lines[at : at + 3]).split())
    # All of them fit beside a long name.
    shares = {f"split_{name}": 0.5 for name in (*LINES, "choosing", "cost_of_looking")}
    text = "\n".join(lines_of(make_row("a", strategy="gtp:P=8,theta=0.6,threshold=fast", **shares)))
    assert "…" not in text
    assert text.count("50.0%") == len(LINES) + 2


def test_csv_frame_and_chart(tmp_path: Path) -> None:
    failed = make_row("b", batch_size=64, status="out of memory", error="no room")
    found = Sweep((make_row("a"), failed))
    path = found.to_csv(tmp_path / "r.csv")
    again = Sweep.read(path)
    assert again.rows[0]["speedup"] == pytest.approx(1.2)
    assert again.failures[0]["error"] == "no room"
    assert "speedup" not in again.failures[0]
    assert len(found.frame()) == 2
    assert found.plot(title="here").get_suptitle() == "here"
    with pytest.raises(OutputExistsError):
        found.to_csv(path)
    assert str(Sweep(())) == ""
