"""Oversmoothing, on the embedded model and data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import tokenred as tr
from tests.shared import shared_path
from tokenred.analysis import Oversmoothing, oversmoothing
from tokenred.analysis.measure.inputs import open_for
from tokenred.analysis.measure.tokens.token_statistics import lost_share, mean_cosine
from tokenred.core.errors import ConfigError, InputError

QUICK: dict[str, Any] = {"limit": 24, "batch_size": 10, "progress": False}
SPECS = ["gtp", "topk", "evit"]


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> Oversmoothing:
    return oversmoothing(digits, "digits", SPECS, gmacs_share=0.75, name="digits ViT", **QUICK)


def test_rows(result: Oversmoothing, digits: nn.Module) -> None:
    frame = result.frame
    assert list(dict.fromkeys(frame["strategy"])) == ["dense", *SPECS]
    counts = frame.groupby("strategy").size().to_dict()
    # Three statistics a block, and what is lost where tokens go: in all blocks, or in 2, 4, 6.
    assert counts == {"dense": 24, "gtp": 24 + 8, "topk": 24 + 3, "evit": 24 + 3}
    assert (frame["images"] == 24).all()
    assert (frame["low"] <= frame["mean"]).all()
    assert (frame["mean"] <= frame["high"]).all()
    reduced = frame[frame["strategy"] != "dense"]
    assert (reduced["gmacs"] <= 0.75 * tr.gmacs(digits)).all()
    assert (reduced["gmacs"] > 0.73 * tr.gmacs(digits)).all()
    evit = frame[(frame["strategy"] == "evit") & (frame["statistic"] == "cosine")]
    last = evit.iloc[-1]
    assert (last["layer"], last["removed"]) == (7, 0)
    assert evit["tokens"].is_monotonic_decreasing


def test_the_figures_are_those_of_a_trace(result: Oversmoothing, digits: nn.Module) -> None:
    frame = result.frame
    budget = tr.Budget(0.75 * tr.gmacs(digits), shape="constant")
    fast = tr.wrap(digits, tr.strategy("gtp").replace(schedule=budget))
    loader = tr.data.make_loader(open_for(digits, "digits"), 24, limit=24)
    images = next(iter(loader))[0]
    with torch.no_grad():
        _, trace = fast.run_with_trace(images)
        _, plain = tr.wrap(digits, tr.Strategy("Random")).run_with_trace(images)
    own = frame[frame["strategy"] == "gtp"]
    for layer in (0, 7):
        row = own[(own["layer"] == layer) & (own["statistic"] == "cosine")].iloc[0]
        alike = mean_cosine(trace.features[layer][:, 1:])
        assert row["mean"] == pytest.approx(alike.mean().item(), abs=1e-5)
        gap = alike - mean_cosine(plain.features[layer][:, 1:])
        assert row["difference"] == pytest.approx(gap.mean().item(), abs=1e-5)
        # As wide as an interval of the mean of paired gaps is.
        half = 1.96 * gap.std().item() / 24**0.5
        assert row["difference_high"] - row["difference_low"] == pytest.approx(2 * half, rel=0.25)
        lost = own[(own["layer"] == layer) & (own["statistic"] == "lost")].iloc[0]
        assert lost["mean"] == pytest.approx(lost_share(trace.steps[layer]).mean().item())
        assert np.isnan(lost["difference"])


def test_batches_make_no_difference(result: Oversmoothing, digits: nn.Module) -> None:
    again = oversmoothing(digits, "digits", SPECS, gmacs_share=0.75, **QUICK | {"batch_size": 24})
    for column in ("mean", "low", "high", "difference_low"):
        np.testing.assert_allclose(again.frame[column], result.frame[column], atol=1e-5)


def test_autocast_and_loaders(digits: nn.Module) -> None:
    loader = tr.data.make_loader(open_for(digits, "digits"), 6, limit=12)
    found = oversmoothing(digits, loader, {"mine": "gtp"}, progress=False, amp=torch.bfloat16)
    plain = oversmoothing(digits, loader, {"mine": "gtp"}, progress=False)
    assert list(dict.fromkeys(found.frame["strategy"])) == ["dense", "mine"]
    assert (found.frame["mean"] != plain.frame["mean"]).any()
    np.testing.assert_allclose(found.frame["mean"], plain.frame["mean"], rtol=0.05)


def test_printed(result: Oversmoothing) -> None:
    text = str(result)
    for words in ("last block: digits ViT on digits", "dense", "topk", "100.0", "24 images",
                  "95% bootstrap", "tokens alive"):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) <= 140
    (figure,) = result.plot().axes
    assert figure.get_xlabel() == "block"


def test_refused(digits: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def never(*args: object, **kwargs: object) -> None:
            raise AssertionError("work was done")

        patch.setattr("tokenred.reduced.model.ReducedViT.run_with_trace", never)
        with pytest.raises(ConfigError, match="level"):
            oversmoothing(digits, "digits", ["gtp"], level=95)
        with pytest.raises(ConfigError, match="each strategy once"):
            oversmoothing(digits, "digits", ["gtp", "gtp"])
        with pytest.raises(ConfigError, match="limit"):
            oversmoothing(digits, "digits", ["gtp"], limit=0)
    bad = torch.full((3, 32, 32), torch.nan)
    loader: DataLoader[Any] = DataLoader([(bad, 0)])
    with pytest.raises(InputError, match="dense: expected numbers"):
        oversmoothing(digits, loader, ["gtp"], progress=False)


def test_images_of_another_size() -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, dynamic_img_size=True
    ).eval()
    loader: DataLoader[Any] = DataLoader([(torch.zeros(3, 48, 48), 0)])
    with pytest.raises(InputError, match="own size"):
        oversmoothing(model, loader, ["gtp:P=2"], progress=False)


def test_what_the_documentation_says_of_the_parts_of_gtp() -> None:
    model = tr.models.load_model(shared_path("models", "vit_cifar10_patch4.safetensors"))
    data = f"cifar10:{shared_path('data', 'cifar10-test.zip')}"
    specs = ["gtp", "gtp:fuser=prune", "topk"]
    found = oversmoothing(
        model, data, specs, gmacs_share=0.75, limit=120, batch_size=40, progress=False
    ).frame
    last = found[(found["layer"] == 7) & (found["statistic"] == "cosine")].set_index("strategy")
    assert last.loc["gtp:fuser=prune", "difference_high"] < 0
    assert last.loc["topk", "difference_low"] > 0
    # Propagation makes what the selection set apart more alike again.
    assert last.loc["gtp:fuser=prune", "mean"] < last.loc["gtp", "mean"]
    assert last.loc["gtp", "mean"] < last.loc["topk", "mean"]
