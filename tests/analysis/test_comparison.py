"""Strategies side by side, on the embedded model and data."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import tokenred as tr
from tokenred.analysis import Comparison, Store, compare, evaluate, paired_difference
from tokenred.analysis.study.worker import Runner
from tokenred.core.errors import (
    ConfigError,
    DataError,
    InputError,
    PartError,
    ScheduleError,
    UnknownNameError,
)
from tokenred.strategies.strategy import Strategy

QUICK = {"batch_size": 8, "limit": 40, "pairs": 2, "progress": False}
SPECS = ["tome:r=6", "random:keep_rate=0.3", tr.strategy("gtp", P=4)]


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> Comparison:
    return compare(digits, "digits", SPECS, name="digits ViT", **QUICK)


def test_rows(result: Comparison, digits: nn.Module) -> None:
    frame = result.frame
    labels = ["dense", "tome:r=6", "random:keep_rate=0.3", "MixedAttn+Propagate"]
    assert frame["strategy"].tolist() == labels
    assert frame["method"].tolist() == ["dense", "tome", "random", "MixedAttn+Propagate"]
    assert list(frame["tokens"][1]) == [64, 58, 52, 46, 40, 34, 28, 22, 16]
    assert frame["gmacs"][1] == pytest.approx(tr.gmacs(tr.wrap(digits, tr.strategy("tome", r=6))))
    assert frame["allowed"][1] == pytest.approx(frame["gmacs"][0] / frame["gmacs"][1])
    assert (frame["images"] == 40).all()
    assert frame["difference"].isna().tolist() == [True, False, False, False]


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
    assert found == pytest.approx(expected)


def test_rows_carry_what_determines_them(result: Comparison) -> None:
    row = result.frame.iloc[3]
    assert row["fingerprint"] == tr.strategy("gtp", P=4).fingerprint()
    assert json.loads(row["config"])["schedule"] == {"name": "Constant", "P": 4}
    assert {"weights", "seed", "batch_size", "device", "processor", "tokenred", "torch", "timm",
            "python", "data", "model", "precision", "threads"} <= set(row.index)  # fmt: skip


def test_printed(result: Comparison) -> None:
    text = str(result)
    for words in ("digits ViT on digits", "tome:r=6", "64→52→40→28→16", "95% paired interval",
                  "speed-up over dense", "realised", "40 images", "weights"):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) <= 140
    sentence = result.resolution()
    widths = (result.frame["difference_high"] - result.frame["difference_low"]).dropna()
    assert "40 images" in sentence
    assert f"{widths.min():.1f} to {widths.max():.1f} points" in sentence


def test_csv(result: Comparison, tmp_path: Path) -> None:
    path = result.to_csv(tmp_path / "c.csv")
    back = pd.read_csv(path)
    assert back["tokens"][1] == "64 58 52 46 40 34 28 22 16"
    assert back["top1"].tolist() == pytest.approx(result.frame["top1"].tolist())
    with pytest.raises(tr.errors.OutputExistsError, match="exists"):
        result.to_csv(path)
    result.to_csv(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["c.csv"]


def test_speed_only_and_accuracy_only(digits: nn.Module) -> None:
    speed = compare(digits, None, ["evit"], **QUICK)
    assert "top1" not in speed.frame
    assert speed.resolution() == ""
    assert "top-1" not in str(speed)
    accuracy = compare(digits, "digits", ["evit"], timing=False, **QUICK)
    assert accuracy.speeds is None
    assert "speedup" not in accuracy.frame
    assert "speed-up" not in str(accuracy)


def test_default_is_five_methods_at_two_budgets(digits: nn.Module) -> None:
    found = compare(digits, "digits", timing=False, batch_size=40, limit=10, progress=False)
    assert found.frame.groupby("method").size().to_dict() == {
        "dense": 1, "gtp": 2, "tome": 2, "evit": 2, "topk": 2, "random": 2,
    }  # fmt: skip
    assert (found.frame["gmacs_share"][1::2] <= 0.85).all()
    assert (found.frame["gmacs_share"][2::2] <= 0.65).all()


def test_names_of_the_users(digits: nn.Module) -> None:
    mine = {"wide": "gtp:P=2", "narrow": tr.strategy("gtp", P=6)}
    found = compare(digits, "digits", mine, timing=False, **QUICK)
    assert found.frame["strategy"].tolist() == ["dense", "wide", "narrow"]
    assert found.frame["method"].tolist() == ["dense", "gtp", "narrow"]


def test_refused_before_any_work(digits: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(Runner, "__call__", never)
    with pytest.raises(UnknownNameError):
        compare(digits, "digits", ["gtp:P=2", "nothing"])
    with pytest.raises(ScheduleError, match="gtp:P=9: "):
        compare(digits, "digits", ["gtp:P=2", "gtp:P=9"])
    with pytest.raises(DataError):
        compare(digits, "digitz", ["gtp:P=2"])
    with pytest.raises(ConfigError, match="each strategy once"):
        compare(digits, "digits", ["topk", "topk"])
    with pytest.raises(ConfigError, match="a list of strategies"):
        compare(digits, "digits", "topk")
    with pytest.raises(ConfigError, match="limit"):
        compare(digits, "digits", ["topk"], limit=0)
    with pytest.raises(ConfigError, match="level"):
        compare(digits, "digits", ["topk"], level=95)
    with pytest.raises(ConfigError, match="a list of strategies"):
        compare(digits, "digits", Strategy("Random"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a list of shares"):
        compare(digits, "digits", ["topk"], baselines=0.5)  # type: ignore[arg-type]


def test_baselines_are_rows_like_the_others(digits: nn.Module) -> None:
    options = QUICK | {"channels_last": True, "warmup": 0}
    found = compare(digits, "digits", ["tome@0.6", "gtp:P=4"], baselines=True, **options)
    frame = found.frame.set_index("strategy")
    share = frame["gmacs_share"]["gtp:P=4"]
    labels = [f"{kind}@{text}" for kind in ("resolution", "depth", "uniform")
              for text in ("0.6", f"{share:.3g}")]  # fmt: skip
    assert list(frame.index) == ["dense", "tome@0.6", "gtp:P=4", *labels]
    assert frame["method"].tolist()[3:] == ["resolution"] * 2 + ["depth"] * 2 + ["uniform"] * 2
    assert (frame["gmacs_share"][labels[::2]] <= 0.6).all()
    assert (frame["gmacs_share"][labels[1::2]] <= share).all()
    assert list(frame["tokens"]["resolution@0.6"]) == [36] * 9
    assert len(frame["tokens"]["depth@0.6"]) < 9
    for column in ("top1", "difference", "p_value", "speedup", "realised"):
        assert frame[column][1:].notna().all()
    assert frame["fingerprint"]["resolution@0.6"] == frame["fingerprint"]["depth@0.6"] == ""
    assert json.loads(frame["config"]["resolution@0.6"])["image_size"] == [24, 24]
    uniform = tr.analysis.baselines(digits, 0.6, kinds=["uniform"])["uniform"]
    assert frame["fingerprint"]["uniform@0.6"] == uniform.strategy.fingerprint()
    low = tr.analysis.baselines(digits, 0.6, kinds=["resolution"])["resolution"]
    alone = evaluate(low, "digits", limit=40, batch_size=8, progress=False)
    assert frame["top1"]["resolution@0.6"] == pytest.approx(alone.top1)
    assert "depth@0.6" in str(found)
    assert found.plot() is not None


def test_baselines_that_cannot_be_had_are_noted(digits: nn.Module) -> None:
    found = compare(digits, "digits", ["topk"], baselines=[0.05], timing=False, **QUICK)
    assert found.frame["strategy"].tolist() == [
        "dense", "topk", "resolution@0.05", "uniform@0.05"
    ]  # fmt: skip
    assert "No baseline depth@0.05: even a single block" in str(found)


def test_a_smaller_model_beside_the_strategies(digits: nn.Module) -> None:
    small = tr.analysis.baselines(digits, 0.3, kinds=["depth"])["depth"]
    found = compare(digits, "digits", ["topk"], smaller=small, timing=False, **QUICK)
    assert found.frame["method"].tolist() == ["dense", "topk", "smaller"]
    assert found.frame["gmacs_share"][2] <= 0.3


def test_what_is_stored_is_not_measured_again(
    digits: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(path: Path, **options: object) -> Comparison:
        specs, told = ["topk", "tome@0.7"], QUICK | {"baselines": [0.6], **options}
        return compare(digits, "digits", specs, store=path, timing=False, **told)

    path = tmp_path / "c.db"
    first = run(path)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "__call__", never)
        again = run(path)
        with pytest.raises(AssertionError, match="again"):
            run(path, seed=1)  # other images
        shifted = tr.models.load_model("digits")
        shifted.head.bias.data += 0.5
        with pytest.raises(AssertionError, match="again"):
            compare(shifted, "digits", ["topk"], store=path, timing=False, **QUICK)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    with Store(path, readonly=True) as store:
        assert len(store) == 6


def test_what_no_key_can_be_made_of_is_compared_all_the_same(digits: nn.Module) -> None:
    rng = np.random.default_rng(0)
    dataset = tr.data.open_dataset("digits")
    usual = tr.data.eval_transform(digits)
    dataset.transform = lambda image: usual(image) + float(rng.normal(scale=1e-6))

    class Drawn(tr.Scorer):
        def __call__(self, state: tr.TokenState, attention: object) -> torch.Tensor:
            return state.image.norm(dim=-1) + float(rng.normal(scale=1e-6))

    mine = {"mine": tr.strategy("topk").replace(scorer=Drawn())}
    found = compare(digits, dataset, mine, timing=False, **QUICK)
    assert found.frame["top1"].notna().all()
    with pytest.raises(PartError, match="rng"):
        compare(digits, dataset, mine, timing=False, store=Store(), **QUICK)


def test_images_that_cannot_be_read_are_named(digits: nn.Module, tmp_path: Path) -> None:
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        Image.new("L", (32, 32), 20 * label).save(tmp_path / str(label) / "a.png")
    (tmp_path / "3" / "b.png").write_bytes(b"torn")
    found = compare(digits, tmp_path, ["topk"], timing=False, progress=False)
    assert (found.frame["images"] == 10).all()
    assert (found.frame["skipped"] == 1).all()
    assert "b.png" in str(found)


def test_an_error_of_a_cell_is_raised(digits: nn.Module) -> None:
    digits = copy.deepcopy(digits)
    digits.head.bias.data.fill_(float("nan"))
    with pytest.raises(InputError, match="got NaN"):
        compare(digits, "digits", ["topk"], timing=False, **QUICK)
