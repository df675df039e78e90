"""Windows of a grid: tokens stay a rectangle, and blocks run as timm's own."""

from typing import Any

import pytest
import torch
from timm.models._features import FeatureGetterNet
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tokenred as tr
from tests.backbones.checks import NOTHING, same, same_run
from tests.backbones.forms import DROPOUT, lively
from tokenred.attention import AttentionStats
from tokenred.core.errors import BackboneError, ConfigError
from tokenred.core.state import Selection, TokenState

# Windows of 4×4 on 9×7 patches: both sides are padded.
TINY: dict[str, Any] = {
    "img_size": (72, 56), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4,
    "num_classes": 5, "window_size": 4, "global_attn_indexes": (1, 3), "neck_chans": 16,
    "use_rel_pos": True,
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "relative positions": {},
    "no positions": {"use_rel_pos": False, "use_abs_pos": False},
    "rotary": {"use_rel_pos": False, "use_rope": True},
    "no neck": {"neck_chans": None},
    "head with a layer": {"neck_chans": None, "head_hidden_size": 8},
    "no classifier": {"num_classes": 0},
    "no pooling": {"num_classes": 0, "global_pool": ""},
    "norms and scales": {"qk_norm": True, "init_values": 0.5, "pre_norm": True},
    "no windows": {"window_size": 0},
    "windows only": {"global_attn_indexes": ()},
}
CUBIST = tr.strategy("cubistmerge", layers=(1, 2, 3), rows_removed=(2, 1, 1))
GRIDS = ((9, 7), (7, 6), (6, 5), (5, 4))


def sam(**options: Any) -> Any:
    return lively(VisionTransformerSAM(**TINY | options)).eval()


def images_of(height: int = 72, width: int = 56) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, height, width, generator=draw)


class Crop(tr.Selector):
    """The last row and column of the grid go, in block 1; or those of what the first one left."""

    again: bool = False

    def grid_after(self, layer: int, depth: int, grid: tuple[int, int]) -> tuple[int, int]:
        gone = 1 + self.again if layer >= 1 else 0
        return grid[0] - gone, grid[1] - gone

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        assert state.token_grid is not None
        rows, columns = state.token_grid
        places = torch.arange(rows * columns).view(rows, columns)
        gone = torch.cat((places[:-1, -1], places[-1]))
        b = state.x.shape[0]
        kept = places[:-1, :-1].flatten()
        return Selection(kept.expand(b, -1), gone.expand(b, -1))


def crop(where: str, **more: Any) -> tr.Strategy:
    counts = tr.PerLayer((0, 15, 0, 0))
    return tr.Strategy(Crop(), fuser="prune", schedule=counts, where=where, **more)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_removed(form: str) -> None:
    model, images = sam(**FORMS[form]), images_of()
    reduced = tr.wrap(model, NOTHING)
    with torch.no_grad():
        assert torch.equal(reduced(images), model(images))
        assert torch.equal(reduced.forward_features(images), model.forward_features(images))
    assert reduced.state_dict().keys() == model.state_dict().keys()
    dropping = lively(VisionTransformerSAM(**TINY | FORMS[form] | DROPOUT)).train()
    same_run(tr.wrap(dropping, NOTHING), dropping, images)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "rotary"])
@pytest.mark.parametrize("where", ["before_block", "after_mlp"])
def test_blocks_run_on_a_smaller_rectangle(form: str, where: str) -> None:
    model, images = sam(**FORMS[form]).double(), images_of().double()
    with torch.no_grad():
        x = tr.wrap(model, NOTHING).backbone.embed(images).x.unflatten(1, (9, 7))
        for layer, block in enumerate(model.blocks):
            if layer == 1 and where == "before_block":
                x = x[:, :-1, :-1].contiguous()
            x = block(x)
            if layer == 1 and where == "after_mlp":
                x = x[:, :-1, :-1].contiguous()
        features = model.neck(x.permute(0, 3, 1, 2))
        reduced = tr.wrap(model, crop(where))
        assert reduced.forward_features(images).shape == features.shape
        same(reduced.forward_features(images), features, 1e-12)
        same(reduced(images), model.forward_head(features), 1e-12)


def test_steps_around_a_block() -> None:
    model, images = sam(global_pool="max").double(), images_of().double()
    both = tr.Strategy(
        steps=(
            tr.Step(
                Crop(), fuser="prune", schedule=tr.PerLayer((0, 15, 0, 0)), where="before_block"
            ),
            tr.Step(
                Crop(again=True),
                fuser="prune",
                schedule=tr.PerLayer((0, 13, 0, 0)),
                where="after_mlp",
            ),
        )
    )
    reduced = tr.wrap(model, both)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        _, trace = reduced.run_with_trace(images[:1])
    assert trace.token_grid_per_layer == ((9, 7), (7, 5), (7, 5), (7, 5))
    assert tr.gmacs(reduced) * 2e9 == pytest.approx(counter.get_total_flops(), rel=1e-12)
    with torch.no_grad():
        x = trace.features[0].unflatten(1, (9, 7))[:, :-1, :-1].contiguous()
        expected = model.blocks[1](x)[:, :-1, :-1].flatten(1, 2)
    same(trace.features[1], expected, 1e-12)


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("no ")])
def test_costs(form: str) -> None:
    # A mean that counts tokens by their size would be counted, too.
    model = sam(**{"global_pool": "max"} | FORMS[form])
    strategies = [tr.Strategy.dense()]
    if form != "rotary":
        strategies += [CUBIST, crop("before_block"), crop("after_mlp")]
    for strategy in strategies:
        reduced = tr.wrap(model, strategy)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            reduced(images_of()[:1])
        assert tr.gmacs(reduced) * 2e9 == pytest.approx(counter.get_total_flops(), rel=1e-12)
    bigger = tr.wrap(model, NOTHING).cost((88, 64)).gmacs
    assert bigger > tr.gmacs(model)


def test_cubistmerge() -> None:
    model, images = sam(), images_of()
    reduced = tr.wrap(model, CUBIST)
    logits, trace = reduced.run_with_trace(images)
    assert trace.token_grid_per_layer == GRIDS
    assert logits.shape == (2, 5)
    assert reduced.forward_features(images).shape == (2, 16, 5, 4)
    assert reduced.forward_features(images, unreduce=True).shape == (2, 16, 9, 7)
    same(reduced.forward_head(reduced.forward_features(images)), logits)
    assert tr.gmacs(reduced) < 0.7 * tr.gmacs(model)
    # Tokens count as often as the patches that they stand for.
    alone = torch.cat([reduced(image[None]) for image in images])
    same(alone, logits)
    model.train()
    reduced(images).square().sum().backward()
    assert all(bool(p.grad.isfinite().all() & p.grad.any()) for p in model.parameters())
    _, trace = reduced.run_with_trace(images_of(48, 96))
    assert trace.token_grid == (2, 9)


def test_gradient_checkpointing() -> None:
    plain, saving = tr.wrap(sam(), CUBIST), tr.wrap(sam(), CUBIST)
    saving.set_grad_checkpointing()
    same_run(saving, plain, images_of())


@pytest.mark.parametrize("norm", [False, True])
def test_maps(norm: bool) -> None:
    model, images = sam(), images_of()
    dense = tr.features(model, None, (0, 2, 3), norm=norm)
    theirs = FeatureGetterNet(sam(), (0, 2, 3), norm=norm)
    same(dense(images), theirs(images), 1e-12)
    channels = [16 if norm else 32] * 3
    assert dense.feature_info.channels() == channels
    small = tr.features(model, CUBIST, (0, 2, 3), norm=norm, unreduce=False)(images)
    assert [tuple(m.shape[1:]) for m in small] == [
        (c, *GRIDS[i]) for c, i in zip(channels, (0, 2, 3), strict=True)
    ]
    full = tr.features(model, CUBIST, (0, 2, 3), norm=norm)(images)
    assert [tuple(m.shape[2:]) for m in full] == [(9, 7)] * 3
    flat = tr.features(model, CUBIST, (0, 2, 3), norm=norm, output_fmt="NLC")(images)
    for one, other in zip(flat, full, strict=True):
        assert torch.equal(one, other.flatten(2).mT)


REFUSED = {
    "no rectangle": "tome",
    "attention": tr.strategy("gtp", P=2),
    "counts of the image": "algm",
    "theta": CUBIST.replace(theta=0.5),
    "sizes in the attention": CUBIST.replace(proportional_attention=True),
    "inside": crop("after_attention"),
    "soft": crop("before_block").replace(fuser="sinkhorn"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"rectangle.*cubistmerge.*GridMatching.*before_block"):
        tr.wrap(sam(), REFUSED[name])


def test_what_no_block_can_do() -> None:
    with pytest.raises(BackboneError, match=r"blocks\.3 \(Block\): its rotary positions"):
        tr.wrap(sam(**FORMS["rotary"], global_attn_indexes=(3,)), crop("before_block"))
    with pytest.raises(BackboneError, match="it takes whole maps"):
        tr.wrap(sam(), CUBIST).run_with_trace(images_of(), attention="mean")


@pytest.mark.slow
def test_one_graph() -> None:
    reduced = tr.wrap(
        sam(depth=2, global_attn_indexes=(1,)),
        crop("before_block").replace(schedule=tr.PerLayer((0, 15))),
    )
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled: Any = torch.compile(reduced, fullgraph=True, backend=graphs)
    with torch.no_grad():
        same(compiled(images_of()), reduced(images_of()))
    assert graphs.frame_count == 1
    torch._dynamo.reset()
