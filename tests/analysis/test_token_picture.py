"""What became of the patches is what the trace says."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokenred as tr
from tokenred.analysis import trace_picture
from tokenred.core.errors import ConfigError, InputError, UnknownNameError
from tokenred.data import eval_transform
from tokenred.data.digits import DigitsSource
from tokenred.strategies.routers import Idle


@pytest.fixture(scope="module")
def seven() -> Image.Image:
    return DigitsSource().image(3)


@pytest.fixture(scope="module")
def odd() -> nn.Module:
    """No CLS, two registers, a grid of 4 rows and 6 columns."""
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=(16, 24), patch_size=4, embed_dim=32, depth=4, num_heads=2, num_classes=3,
        class_token=False, reg_tokens=2, global_pool="avg",
    ).eval()  # fmt: skip


def test_each_patch_is_alive_held_pooled_or_lost(digits: nn.Module, seven: Image.Image) -> None:
    picture = trace_picture(digits, seven, ["gtp:P=5", "tome:r=5", "evit", "topk"])
    assert picture.grid == (8, 8)
    assert np.abs(picture.pixels - np.asarray(seven) / 255).max() < 1e-5
    assert [row.label for row in picture.rows] == ["gtp:P=5", "tome:r=5", "evit", "topk"]
    at = np.arange(64).reshape(8, 8)
    for row in picture.rows:
        # By default the last block of each quarter.
        assert [stage.layer for stage in row.stages] == [1, 3, 5, 7]
        for stage in row.stages:
            kinds = [stage.alive, stage.held, stage.pooled, stage.lost]
            assert (np.sum(kinds, axis=0) == 1).all()
            # A fused token that is kept while the next one is made: there may be several.
            fused = stage.tokens - stage.alive.sum()
            assert 0 <= fused <= 3
            assert (fused > 0) == stage.pooled.any()
            assert (stage.holder[stage.alive] == at[stage.alive]).all()
            # Who stands for a patch is alive itself.
            assert stage.alive.flatten()[stage.holder[stage.held]].all()
    evit, topk = (row.stages[-1] for row in picture.rows[2:])
    assert topk.lost.sum() == 64 - topk.tokens
    assert evit.pooled.sum() == 64 - evit.alive.sum() > 0
    assert (evit.holder[evit.pooled] == -1).all()


def test_the_owners_are_those_of_the_trace(digits: nn.Module, seven: Image.Image) -> None:
    picture = trace_picture(digits, seven, ["tome:r=5"], [2, 6])
    images = eval_transform(digits)(seven)[None]
    logits, trace = tr.wrap(digits, "tome:r=5").run_with_trace(images)
    for stage in picture.rows[0].stages:
        cut = trace.cut(stage.layer)
        expected = cut.index[0][cut.owners()[0]]
        assert stage.holder.flatten().tolist() == expected.tolist()
        assert stage.tokens == trace.tokens_per_layer[stage.layer]
    assert picture.rows[0].prediction == int(logits.argmax())


class MovedTogether(Idle):
    """The tokens that idle are all moved by the same vector."""

    def join(self, before, active, resting, attention):  # type: ignore[no-untyped-def]
        state = super().join(before, active, resting, attention)
        idle = torch.ones(state.x.shape[:2]).scatter(1, resting["places"], 0.0)
        step = torch.linspace(-1, 1, state.x.shape[2])
        return dataclasses.replace(state, x=state.x + idle[..., None] * step)


def test_idle_tokens_are_alive_and_known(digits: nn.Module, seven: Image.Image) -> None:
    # Blocks before the first that idles, the first, and the last.
    spec = "idlevit:keep_ratios=[0.5,0.25],layers=[0,7]"
    (row,) = trace_picture(digits, seven, [spec], [0, 3, 7]).rows
    assert [stage.idle.sum() for stage in row.stages] == [32, 0, 48]
    assert all(stage.alive.all() for stage in row.stages)
    plain = tr.strategy("idlevit", keep_ratios=[0.5], layers=[2])
    moved = plain.replace(router=MovedTogether((0.5,), (2,)))
    expected, found = trace_picture(digits, seven, [plain, moved], [2]).rows
    assert (found.stages[0].idle == expected.stages[0].idle).all()
    assert found.stages[0].idle.sum() == 32


def test_a_grid_that_is_not_square_without_cls(odd: nn.Module) -> None:
    picture = trace_picture(odd, torch.randn(3, 16, 24), ["gtp:P=4", "tome:r=4"], [0, 3])
    assert picture.grid == (4, 6)
    assert picture.pixels.shape == (16, 24, 3)
    assert 0 <= picture.pixels.min() <= picture.pixels.max() <= 1
    for row in picture.rows:
        assert [stage.tokens for stage in row.stages] == [20, 8]
        assert row.stages[0].alive.shape == (4, 6)


def test_edges_lead_from_what_is_left_to_what_is_gone(
    digits: nn.Module, seven: Image.Image
) -> None:
    gtp, tome = trace_picture(digits, seven, ["gtp:P=5", "tome:r=5"], [3], edges=True).rows
    stage = gtp.stages[0]
    alive = stage.alive.flatten()
    assert alive[stage.edges[:, 0]].all()
    assert not alive[stage.edges[:, 1]].any()
    # Each patch that another holds is its neighbour.
    pairs = {tuple(edge) for edge in stage.edges.tolist()}
    assert {(stage.holder.flatten()[g], g) for g in np.flatnonzero(stage.held)} <= pairs
    assert len(tome.stages[0].edges) == 0
    assert len(trace_picture(digits, seven, ["gtp:P=5"], [3]).rows[0].stages[0].edges) == 0


def test_classes_and_probabilities(digits: nn.Module, seven: Image.Image, odd: nn.Module) -> None:
    digits.train()
    try:
        picture = trace_picture(tr.wrap(digits, "gtp"), seven, ["gtp:P=2"])
        assert digits.training
    finally:
        digits.eval()
    assert picture.said(picture.dense).startswith("7 (")
    named = trace_picture(digits, seven, ["gtp:P=2"], classes=[f"digit {i}" for i in range(10)])
    assert named.said(named.dense).startswith("digit 7 (")
    image = torch.randn(1, 3, 16, 24)
    unknown = trace_picture(odd, image, ["gtp:P=2"])
    assert unknown.said(unknown.dense).startswith("class ")
    odd.num_classes, before = 0, odd.num_classes
    try:
        headless = trace_picture(odd, image, ["gtp:P=2"])
    finally:
        odd.num_classes = before
    assert headless.said(headless.rows[0]) == ""


@pytest.mark.parametrize("layers", [[8], [-1], [3, 1], [1, 1], [], [1.0]])
def test_refused_layers(digits: nn.Module, seven: Image.Image, layers: Any) -> None:
    with pytest.raises(ConfigError, match="blocks from 0 to 7"):
        trace_picture(digits, seven, ["gtp"], layers)


def test_refused(digits: nn.Module, seven: Image.Image) -> None:
    for none in ("gtp", []):
        with pytest.raises(ConfigError, match="list of strategies"):
            trace_picture(digits, seven, none)
    with pytest.raises(UnknownNameError):
        trace_picture(digits, seven, ["nothing"])
    with pytest.raises(InputError, match="one image"):
        trace_picture(digits, torch.zeros(2, 3, 32, 32), ["gtp"])
    with pytest.raises(InputError, match="PIL image or a tensor, got str"):
        trace_picture(digits, "photo.jpg", ["gtp"])  # type: ignore[arg-type]
