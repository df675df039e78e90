"""Evo-ViT as a whole: published costs, all tokens survive."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.strategies.recipes.checks import (
    SMALL,
    WITH_CLS,
    check_a_batch_is_its_images,
    images,
    model,
    wrapped,
)
from tokenred.core.errors import ConfigError
from tokenred.models.rebuild import weightless
from tokenred.strategies.routers import SlowFast


@pytest.mark.parametrize(
    ("name", "gmacs"), [("deit_small_patch16_224", 3.0), ("deit_base_patch16_224", 11.7)]
)
def test_the_published_gmacs(name: str, gmacs: float) -> None:
    with weightless():
        vit = timm.create_model(name).eval()
    reduced = tr.wrap(vit, "evo-vit")
    assert tr.gmacs(reduced) == pytest.approx(gmacs, abs=0.16)
    assert [x.active for x in reduced.cost().layers] == [196] * 4 + [99] * 8
    assert "(99 active)" in repr(reduced)
    # The released program has no representative.
    without = tr.wrap(vit, tr.strategy("evo-vit", reference=True))
    assert without.cost().layers[4].active == 98
    assert tr.gmacs(without) < tr.gmacs(reduced)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.floats(0.05, 1.0),
    st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True).map(sorted),
    st.booleans(),
    st.booleans(),
    st.sampled_from(WITH_CLS),
)
def test_all_tokens_survive(
    rate: float, layers: list[int], representative: bool, stagewise: bool, form: str
) -> None:
    strategy = tr.strategy(
        "evo-vit", keep_rate=rate, layers=layers, representative=representative, stagewise=stagewise
    )
    reduced = tr.wrap(model(form), strategy)
    with torch.no_grad():
        _, trace = reduced.run_with_trace(images(form, b=2))
    everyone = torch.arange(16).expand(2, 16)
    assert trace.tokens_per_layer == (16,) * 4
    assert all(torch.equal(index, everyone) for index in trace.index_per_layer)
    assert torch.equal(trace.owners(), everyone)
    p = reduced.info.num_prefix
    count = reduced.strategy.router.active(layers[0], 4, 16)
    if count is not None:
        stage = trace.features[layers[0] - 1], trace.features[layers[0]]
        still = (stage[0] == stage[1]).all(dim=-1)[:, p:].sum(dim=1)
        assert still.tolist() == [0 if representative else 16 - count] * 2


def test_composition() -> None:
    made = tr.strategy("evo-vit", keep_rate=0.4, layers=[2], t=0.3, stagewise=False)
    assert made.router == SlowFast(0.4, (2,), 0.3, True, False)
    assert tr.strategy("EVO-VIT", reference=True) == tr.strategy("evo-vit", representative=False)
    whole = wrapped(tr.strategy("evo-vit", keep_rate=1.0))
    assert torch.equal(whole(images()), whole.base(images()))
    together = tr.strategy("evo-vit", proportional_attention=True)
    check_a_batch_is_its_images(together)
    with pytest.raises(ConfigError, match="both idle and remove"):
        tr.wrap(model(), tr.strategy("evo-vit", schedule=1))
    bare = VisionTransformer(**SMALL, class_token=False, global_pool="avg")
    with pytest.raises(ConfigError, match="attention of a CLS token"):
        tr.wrap(bare, "evo-vit")
