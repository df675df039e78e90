"""MSTM as a whole: starts unchanged, counts and costs, every form."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.strategies.recipes.checks import (
    SMALL,
    check_a_batch_is_its_images,
    images,
    model,
    wrapped,
)
from tokenred.models.rebuild import weightless
from tokenred.strategies.selectors import Partnered

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@pytest.mark.parametrize("form", ["cls", "no cls", "lvvit"])
def test_a_pretrained_model_starts_unchanged(form: str) -> None:
    base, batch = model(form), images(form)
    with torch.no_grad():
        whole = tr.wrap(base, tr.strategy("mstm", keep_rate=1.0))
        # Up to the layout of the tokens in memory, which a model without a prefix returns.
        torch.testing.assert_close(whole(batch), base(batch), rtol=0, atol=1e-12)
        merged = tr.wrap(base, "mstm")
        without = tr.wrap(base, tr.strategy("mstm", multi_scale=False))
        assert torch.equal(merged(batch), without(batch))
        torch.nn.init.normal_(merged.parts["embedding"].project.weight)
        assert not torch.allclose(merged(batch), without(batch))


def test_counts_and_costs() -> None:
    with weightless():
        vit = timm.create_model("deit_small_patch16_224").eval()
    cost = tr.wrap(vit, "mstm").cost()
    assert [x.tokens_out for x in cost.layers[3::3]] == [138, 97, 68]
    assert cost.gmacs - cost.learned / 1e9 == pytest.approx(3.00, abs=0.005)
    assert cost.learned / 1e9 == pytest.approx(0.065, abs=0.001)  # 0.058 without the projection
    with weightless():
        gray = VisionTransformer(**SMALL, in_chans=1)
    assert tr.wrap(gray, "mstm").cost().learned == 4 * 32 * (256 + 32)


@pytest.mark.parametrize("weights", ["importance", "size", "similarity"])
def test_nothing_is_lost(weights: str) -> None:
    strategy = tr.strategy("mstm", weights=weights)
    check_a_batch_is_its_images(strategy)
    _, trace = wrapped(strategy).run_with_trace(images())
    assert trace.tokens_per_layer == (16, 12, 9, 7)
    # Each patch is in some token, unless nobody looks at it.
    assert (trace.owners() >= 0).all()


def test_composition() -> None:
    made = tr.strategy("mstm", keep_rate=[0.5, 0.5], layers=[1, 2], weights="similarity")
    assert made == tr.Strategy(
        Partnered(tr.scorers.CLSAttn("mean", "column_sum"), "similarity"),
        fuser="merge",
        schedule=tr.KeepRatio((0.5, 0.5), (1, 2)),
        embedding="multi_scale",
    )
    assert tr.strategy("mstm", scorer="Random").scorer.scorer == tr.scorers.Random()
    assert tr.strategy("mstm", reference=True) == tr.strategy("MSTM")
    assert "parts.embedding.project.weight" in wrapped(made).state_dict()


def test_images_of_any_size() -> None:
    vit = VisionTransformer(**SMALL, dynamic_img_size=True)
    reduced = tr.wrap(vit.eval(), "mstm")
    torch.nn.init.normal_(reduced.parts["embedding"].project.weight)
    for height, width in ((32, 32), (40, 24)):
        batch = torch.randn(2, 3, height, width)
        _, trace = reduced.run_with_trace(batch)
        assert trace.grid == (height // 8, width // 8)
        assert tr.gmacs(reduced, (height, width)) > 0
