"""Strategies side by side, on the embedded model and data."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import tokenred as tr
from tokenred.analysis import Comparison, Store, compare, evaluate, paired_difference
from tokenred.analysis.plots.looks import variants_of
from tokenred.analysis.study.worker import Runner
from tokenred.core.errors import (
    ConfigError,
    DataError,
    InputError,
    PartError,
    ScheduleError,
    UnknownNameError,
)

QUICK: dict[str, Any] = {
    "batch_size": 8, "limit": 16, "pairs": 2, "warmup": 0, "progress": False
}  # fmt: skip
UNTIMED = QUICK | {"timing": False}
SPECS = ["tome:r=6", "random:keep_rate=0.3", tr.strategy("gtp", P=4)]


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> Comparison:
    return compare(digits, "digits", SPECS, **QUICK | {"limit": 40})


def test_rows(result: Comparison, digits: nn.Module) -> None:
    frame = result.frame
    labels = ["dense", "tome:r=6", "random:keep_rate=0.3", "MixedAttn+Propagate"]
    assert frame["strategy"].tolist() == labels
    assert frame["method"].tolist() == ["dense", "tome", "random", "MixedAttn+Propagate"]
    assert list(frame["tokens"][1]) == [64, 58, 52, 46, 40, 34, 28, 22, 16]
    assert frame["gmacs"][1] == pytest.approx(tr.gmacs(tr.wrap(digits, tr.strategy("tome", r=6))))
    assert frame["allowed"][1] == pytest.approx(frame["gmacs"][0] / frame["gmacs"][1])
    assert (frame["images"] == 40).all()
    assert (frame["model"] == "digits").all()  # as every table calls it
    assert frame["difference"].isna().tolist() == [True, False, False, False]
    rates = frame["images_per_second"]
    assert rates[0] == pytest.approx(1e3 * 8 / frame["ms"][0])
    assert rates[1:].tolist() == pytest.approx((rates[0] * frame["speedup"][1:]).tolist())
    (column,) = (c for c in result.table().columns if str(c.header) == "images\nper second")
    assert list(map(str, column.cells)) == [f"{rate:.1f}" for rate in rates]
    row = frame.iloc[3]
    assert row["fingerprint"] == tr.strategy("gtp", P=4).fingerprint()
    assert json.loads(row["config"])["schedule"] == {"name": "Constant", "P": 4}
    assert {"weights", "seed", "batch_size", "device", "processor", "tokenred", "torch", "timm",
            "python", "data", "model", "precision", "threads"} <= set(row.index)  # fmt: skip


@pytest.mark.parametrize("against", ["tome", "mine"])
def test_against_a_strategy_at_each_budget(digits: nn.Module, against: str) -> None:
    methods = {"mine": "gtp:scorer=Random", "topk": "topk"} | (
        {"tome": "tome"} if against == "mine" else {}
    )
    found = compare(
        digits, "digits", methods, budget=(0.5, 0.7), against=against, limit=40, timing=False,
        progress=False,
    )  # fmt: skip
    frame = found.frame.set_index("strategy")
    assert sorted(frame.index) == sorted(
        ["dense", *(f"{name}@{share}" for name in ("mine", "tome", "topk") for share in (0.5, 0.7))]
    )
    assert np.isnan(frame.loc["dense", "difference"])  # has no budget
    for share in (0.5, 0.7):
        reference = frame.loc[f"{against}@{share}"]
        assert np.isnan(reference["difference"])
        assert reference["difference_from"] == reference.name
        for name in {"mine", "tome", "topk"} - {against}:
            row = frame.loc[f"{name}@{share}"]
            assert row["difference_from"] == reference.name
            assert row["difference"] == pytest.approx(row["top1"] - reference["top1"])
            assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert f"difference from {against} at the same budget" in str(found)
    found.plot()


def test_a_row_whose_reference_is_left_out_says_so(digits: nn.Module) -> None:
    found = compare(
        digits, "digits", ["random"], budget=(0.35, 0.65), against="gtp", limit=40, timing=False,
        progress=False,
    )  # fmt: skip
    assert "gtp@0.35" not in found.frame["strategy"].tolist()
    assert "No difference for random@0.35, whose reference was left out." in str(found)


def test_against_a_strategy_of_one_cost(digits: nn.Module) -> None:
    methods = ["gtp:scorer=MixedAttn,P=4", "topk:keep_rate=0.6"]
    found = compare(
        digits, "digits", methods, against="gtp:P=4", limit=40, timing=False, progress=False
    )
    frame = found.frame.set_index("strategy")
    assert list(frame.index) == ["dense", *methods]  # one strategy in two spellings
    assert set(frame["difference_from"]) == {methods[0]}
    gap = frame["top1"] - frame.loc[methods[0], "top1"]
    assert frame["difference"].drop(methods[0]).tolist() == pytest.approx(
        gap.drop(methods[0]).tolist()
    )


def test_a_row_equals_evaluate_and_the_paired_interval(
    result: Comparison, digits: nn.Module
) -> None:
    alone = evaluate(tr.wrap(digits, tr.strategy("gtp", P=4)), "digits", limit=40, progress=False)
    dense = evaluate(digits, "digits", limit=40, progress=False)
    row = result.frame.iloc[3]
    assert row["top1"] == pytest.approx(alone.top1)
    gap = paired_difference(alone.correct, dense.correct)
    found = [row["difference"], row["difference_low"], row["difference_high"], row["p_value"]]
    expected = [100 * gap.difference, 100 * gap.low, 100 * gap.high, gap.p_value]
    assert (row["difference_from"], row["difference_level"]) == ("dense", 0.95)
    assert found == pytest.approx(expected)


def test_csv(result: Comparison, tmp_path: Path) -> None:
    path = result.to_csv(tmp_path / "c.csv")
    back = pd.read_csv(path)
    assert back["tokens"][1] == "64 58 52 46 40 34 28 22 16"
    assert back["top1"].tolist() == pytest.approx(result.frame["top1"].tolist())


def test_images_that_cannot_be_kept_are_decoded_once(
    digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, predictions and what is left out stay as they are."""
    dataset = tr.data.open_dataset("digits")
    read: list[int] = []
    usual = tr.data.eval_transform(digits)

    def counted(image: Any) -> torch.Tensor:
        read.append(1)
        return usual(image)

    dataset.transform = counted
    kept = compare(digits, dataset, SPECS, **UNTIMED)
    assert len(read) <= 16 + len(SPECS)
    del read[:]
    monkeypatch.setattr("tokenred.analysis.study.design._MEGABYTE", 0)
    streamed = compare(digits, dataset, SPECS, **UNTIMED)
    assert len(read) <= 16 + 1 + len(SPECS)
    # Without a store, keys only tell the rows apart.
    both = (found.frame.drop(columns="key") for found in (kept, streamed))
    pd.testing.assert_frame_equal(*both)
    broken = [*SPECS[:2], tr.strategy("gtp").replace(scorer=_Broken())]
    with pytest.raises(ZeroDivisionError):
        compare(digits, dataset, broken, **UNTIMED)


class _Broken(tr.Scorer):
    def __call__(self, state: tr.TokenState, attention: object) -> torch.Tensor:
        raise ZeroDivisionError


def test_speed_only_and_accuracy_only(digits: nn.Module) -> None:
    speed = compare(digits, None, ["evit"], **QUICK)
    assert "top1" not in speed.frame
    assert "can tell" not in str(speed)
    assert not {"top-1", "Accuracy"} & set(str(speed).split())
    mine = {"wide": "gtp:P=2", "narrow": tr.strategy("gtp", P=6)}
    accuracy = compare(digits, "digits", mine, **UNTIMED)
    assert "speedup" not in accuracy.frame
    assert "speed-up" not in str(accuracy)
    assert accuracy.frame["strategy"].tolist() == ["dense", "wide", "narrow"]
    unknown = accuracy.frame.assign(overhead_gmacs=float("nan"))
    notes = "\n".join(Comparison(unknown, 0.95, ()).footnotes())
    assert "is unknown" in notes
    assert "atch" not in notes
    assert "econd" not in notes
    assert accuracy.frame["method"].tolist() == ["dense", "gtp", "narrow"]


def test_what_cannot_meet_its_budget_is_left_out(digits: nn.Module) -> None:
    found = compare(digits, None, ["topk@0.1", "gtp@0.6"], **QUICK)
    assert found.frame["strategy"].tolist() == ["dense", "gtp@0.6"]
    assert "Left out: topk@0.1: the budget is" in str(found)
    found = compare(digits, None, ["gtp"], budget=0.6, **QUICK)
    assert found.frame["strategy"].tolist() == ["dense", "gtp@0.6"]


def test_default_is_five_methods_at_two_budgets(digits: nn.Module) -> None:
    found = compare(digits, "digits", timing=False, batch_size=40, limit=10, progress=False)
    assert found.frame.groupby("method").size().to_dict() == {
        "dense": 1, "gtp": 2, "tome": 2, "evit": 2, "topk": 2, "random": 2,
    }  # fmt: skip
    assert (found.frame["gmacs_share"][1::2] <= 0.85).all()
    assert (found.frame["gmacs_share"][2::2] <= 0.65).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"strategies": ["gtp:P=2", "nothing"]}, UnknownNameError, "nothing"),
        ({"strategies": ["gtp:P=2", "gtp:P=9"]}, ScheduleError, "gtp:P=9: "),
        ({"data": "digitz"}, DataError, "digitz"),
        ({"strategies": ["topk", "topk"]}, ConfigError, "a distinct name for each strategy"),
        ({"strategies": "topk"}, ConfigError, "a list of strategies"),
        ({"limit": 0}, ConfigError, "compare: limit must be"),
        ({"share": 0.5}, UnknownNameError, "compare has no parameter 'share'.*budget"),
        ({"data": torch.zeros(99, 99)}, DataError, "got tensor.{,80}…; known names"),
        ({"level": 95}, ConfigError, "level"),
        ({"baselines": 0.5}, ConfigError, "baselines must be"),
    ],
)
def test_refused_before_any_work(
    digits: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(Runner, "__call__", None)
    with pytest.raises(error, match=message):
        compare(**{"model": digits, "data": "digits", "strategies": ["topk"], **changes})


def test_baselines_are_rows_like_the_others(digits: nn.Module) -> None:
    options = QUICK | {"channels_last": True, "baselines": True}
    found = compare(digits, "digits", ["tome@0.6"], **options)
    frame = found.frame.set_index("strategy")
    kinds = ["resolution", "depth", "uniform"]
    assert list(frame.index) == ["dense", "tome@0.6", *(f"{kind}@0.6" for kind in kinds)]
    assert frame["method"].tolist()[2:] == kinds
    assert (frame["gmacs_share"][1:] <= 0.6).all()
    assert list(frame["tokens"]["resolution@0.6"]) == [36] * 9
    assert len(frame["tokens"]["depth@0.6"]) < 9
    for column in ("top1", "difference", "p_value", "speedup", "realised"):
        assert frame[column][1:].notna().all()
    assert frame["fingerprint"]["resolution@0.6"] == frame["fingerprint"]["depth@0.6"] == ""
    assert json.loads(frame["config"]["resolution@0.6"])["image_size"] == [24, 24]
    uniform = tr.analysis.baselines(digits, 0.6, kinds=["uniform"])["uniform"]
    assert frame["fingerprint"]["uniform@0.6"] == uniform.strategy.fingerprint()
    low = tr.analysis.baselines(digits, 0.6, kinds=["resolution"])["resolution"]
    alone = evaluate(low, "digits", limit=16, batch_size=8, progress=False)
    assert frame["top1"]["resolution@0.6"] == pytest.approx(alone.top1)
    assert "depth@0.6" in str(found)
    assert found.plot() is not None


def test_baselines_are_compared_with_the_reference_at_their_share(digits: nn.Module) -> None:
    options = {**UNTIMED, "budget": [0.8, 0.6], "against": "gtp", "baselines": True}
    found = compare(digits, "digits", ["tome"], **options)
    rows = found.frame.set_index("strategy")["difference_from"].dropna().to_dict()
    names = [name for name in found.frame["strategy"] if name != "dense"]
    assert rows == {name: f"gtp@{name.rpartition('@')[2]}" for name in names}
    assert {"resolution@0.8", "resolution@0.6"} <= set(names)
    assert variants_of(found.frame).count("resolution") == 2


def test_baselines_that_cannot_be_had_are_noted_and_a_smaller_model_is_a_row(
    digits: nn.Module,
) -> None:
    small = tr.analysis.baselines(digits, 0.3, kinds=["depth"])["depth"]
    found = compare(digits, "digits", ["topk"], baselines=[0.05], smaller=small, **UNTIMED)
    assert found.frame["method"].tolist() == ["dense", "topk", "resolution", "uniform", "smaller"]
    assert "No baseline depth@0.05: even a single block" in str(found)
    assert found.frame["gmacs_share"][4] <= 0.3


def test_what_is_stored_is_not_measured_again(
    digits: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.db"
    options = UNTIMED | {"baselines": [0.6], "store": path}
    first = compare(digits, "digits", ["topk", "tome@0.7"], **options)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "__call__", never)
        again = compare(digits, "digits", ["topk", "tome@0.7"], **options)
        with pytest.raises(AssertionError, match="again"):  # other images
            compare(digits, "digits", ["topk", "tome@0.7"], **options | {"seed": 1})
        shifted = tr.models.load_model("digits")
        shifted.head.bias.data += 0.5
        with pytest.raises(AssertionError, match="again"):
            compare(shifted, "digits", ["topk"], **UNTIMED, store=path)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    with Store(path, readonly=True) as store:
        assert len(store) == 6
        # Baselines, too, are known by what the table prints.
        for name, key in zip(first.frame["strategy"], first.frame["key"], strict=True):
            assert store.compare(name, "tome@0.7") == store.compare(key, "tome@0.7")


def test_what_no_key_can_be_made_of_is_compared_all_the_same(digits: nn.Module) -> None:
    rng = np.random.default_rng(0)
    dataset = tr.data.open_dataset("digits")
    usual = tr.data.eval_transform(digits)
    dataset.transform = lambda image: usual(image) + float(rng.normal(scale=1e-6))

    class Drawn(tr.Scorer):
        def __call__(self, state: tr.TokenState, attention: object) -> torch.Tensor:
            return state.image.norm(dim=-1) + float(rng.normal(scale=1e-6))

    mine = {"mine": tr.strategy("topk").replace(scorer=Drawn())}
    found = compare(digits, dataset, mine, **UNTIMED)
    assert found.frame["top1"].notna().all()
    with pytest.raises(PartError, match="rng"):
        compare(digits, dataset, mine, store=Store(), **UNTIMED)


def test_images_that_cannot_be_read_are_named(digits: nn.Module, tmp_path: Path) -> None:
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        Image.new("L", (32, 32), 20 * label).save(tmp_path / str(label) / "a.png")
    for name in "bcdefgh":
        (tmp_path / "3" / f"{name}.png").write_bytes(b"torn")
    found = compare(digits, tmp_path, ["topk"], timing=False, progress=False)
    assert (found.frame["images"] == 10).all()
    assert (found.frame["skipped"] == 7).all()
    (line,) = [line for line in found.notes if line.startswith("Skipped: 7 unreadable images: ")]
    assert "b.png (" in line
    assert line.endswith("; and 2 more.")


def test_an_error_of_a_cell_is_raised(digits: nn.Module) -> None:
    digits = copy.deepcopy(digits)
    digits.head.bias.data.fill_(float("nan"))
    with pytest.raises(InputError, match="got NaN"):
        compare(digits, "digits", ["topk"], **UNTIMED)


# ---------------------------------------------------------------- what is shown


def test_the_table() -> None:
    frame = pd.DataFrame([
        {"strategy": "dense", "tokens": (64,) * 5, "gmacs": 1.0, "top1": 80.0},
        {"strategy": "gtp[P=4]", "tokens": (64, 60, 50, 40, 30), "gmacs": 0.51234, "top1": 79.0,
         "difference": -0.001, "difference_low": -2.5, "difference_high": 1.5},
    ]).assign(model="ViT", data="digits", tokenred="0", torch="2", timm="1", seed=3, weights="abc",
              images=1)  # fmt: skip
    made = Comparison(frame, 0.9, ("a note",))
    title, *lines = str(made).splitlines()
    assert title.strip() == "ViT on digits"
    row = next(line for line in lines if "gtp" in line)
    # Brackets are no markup, nothing is −0.00, tokens are those at the quarters of the depth.
    assert row.split() == ["gtp[P=4]", "64→60→50→40→30", "0.512", "79.00", "+0.00", "[-2.50,",
                           "+1.50]"]  # fmt: skip
    for words in ("points [90% paired]", "Accuracy: 1 image, the same for all rows.",
                  "seed 3, weights abc."):  # fmt: skip
        assert words in str(made)
    told = made.footnotes()
    assert told[-2] == "a note"
    assert told[-1].startswith("What 1 image can tell: the 90% intervals are 4.0 points wide.")
    assert "more than about 2.0 points shows" in told[-1]
