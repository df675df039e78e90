"""Methods that keep a rectangle of tokens say so, and hand it on as smaller maps."""

import pytest
import torch

import tokenred as tr
from tests.backbones.forms import images_for, vit
from tokenred.core.errors import ConfigError
from tokenred.strategies.fusers import Maximum
from tokenred.strategies.schedules.grid_shrink import GridShrink
from tokenred.strategies.selectors.matching.grid_matching import GridMatching

# 4×3 patches: 3×2 from block 1 on, 2×1 after block 2.
CUBIST = tr.strategy("cubistmerge", rows_removed=1, columns_removed=1, layers=(1, 2))
GRIDS = ((4, 3), (3, 2), (2, 1))
SHRINK = GridShrink(1, 1, (1,))
MATCHED = {"scorer": GridMatching(SHRINK), "schedule": SHRINK, "where": "before_block"}


def test_rectangles_of_tokens() -> None:
    model = vit()
    reduced, images = tr.wrap(model, CUBIST), images_for(model)
    _, trace = reduced.run_with_trace(images)
    assert trace.token_grid_per_layer == GRIDS
    assert (trace.grid, trace.token_grid) == ((4, 3), (2, 1))
    assert trace.cut(1).token_grid == (3, 2)
    for layer, grid in enumerate(GRIDS):
        kept = reduced.kept_tokens(images, layer=layer, norm=False)
        assert (kept.grid, kept.token_grid) == ((4, 3), grid)
        assert torch.equal(kept.dense(unreduce=False).flatten(2).mT, kept.tokens)
    # By their patches, tokens are in another order than in their rectangle.
    assert kept.sorted().token_grid is None
    assert reduced.kept_tokens(images, layer=0).sorted().token_grid == (4, 3)


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (tr.strategy("gtp", P=0), ((4, 3),) * 3),
        (tr.strategy("tome", r=[0, 2, 0]), ((4, 3), None, None)),
        # All windows merge, in the order of their similarity.
        (tr.strategy("algm", threshold=-1, window=(2, 1)), (None,) * 3),
        # As many tokens as the rectangle has, but of no places.
        (tr.Strategy(fuser="sinkhorn", **MATCHED), ((4, 3), None, None)),
        (tr.strategy("idlevit", layers=(1,), keep_ratios=(0.5,)), ((4, 3),) * 3),
        (tr.strategy("evo-vit", layers=(1,), keep_rate=0.5), ((4, 3),) * 3),
        (tr.Strategy(fuser=Maximum(), **MATCHED | {"where": "after_mlp"}), GRIDS[:2] + GRIDS[1:2]),
    ],
    ids=["nothing", "tome", "algm", "soft", "idle", "slow and fast", "after the MLP"],
)
def test_other_methods(strategy: tr.Strategy, expected: object) -> None:
    model = vit()
    _, trace = tr.wrap(model, strategy).run_with_trace(images_for(model))
    assert trace.token_grid_per_layer == expected


def test_maps_of_the_rectangles() -> None:
    model = vit()
    encoder = tr.features(model, CUBIST, unreduce=False)
    maps = encoder(images_for(model))
    assert [tuple(m.shape) for m in maps] == [(2, 32, *grid) for grid in GRIDS]
    _, trace = encoder.model.run_with_trace(images_for(model))
    for found, tokens in zip(maps, trace.features, strict=True):
        assert torch.equal(found.flatten(2).mT, tokens[:, 1:])
    # A stride of 3/2 patches is none that timm can tell.
    assert encoder.feature_info.reduction() == [None] * 3
    full = tr.features(model, CUBIST)
    assert [tuple(m.shape) for m in full(images_for(model))] == [(2, 32, 4, 3)] * 3
    assert full.feature_info.reduction() == [8] * 3
    flat = tr.features(model, "tome:r=2", unreduce=False, output_fmt="NLC")(images_for(model))
    assert [tuple(m.shape) for m in flat] == [(2, n, 32) for n in (10, 8, 6)]


def test_no_map_of_other_tokens() -> None:
    model, words = vit(), r"blocks \[1, 2\] form no rectangle.*NLC.*cubistmerge"
    tome = tr.wrap(model, tr.strategy("tome", r=[0, 1, 0]))
    with pytest.raises(ConfigError, match=words):
        tr.features(tome, unreduce=False)
    with pytest.raises(ConfigError, match=words):
        tome.forward_intermediates(images_for(model), unreduce=False)
    (first,) = tr.features(tome, out_indices=[0], unreduce=False)(images_for(model))
    assert first.shape == (2, 32, 4, 3)
    with pytest.raises(ConfigError, match="form no rectangle"):
        tome.kept_tokens(images_for(model)).dense(unreduce=False)
