"""Every family in every form: nothing removed is nothing changed, and tokens go as announced."""

from typing import Any

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import ParallelScalingBlock
from torch._dynamo.testing import CompileCounter

import tokenred as tr
from tests.backbones.checks import NOTHING, OPENED, blocks_agree, same, same_run
from tests.backbones.forms import FORMS, TINY, answer, build, images_for, lively
from tokenred.core.errors import ConfigError

SOME = tr.strategy("gtp", P=2, M=3)
untrained = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_nothing_removed(form: str, training: bool) -> None:
    model = build(form, dropout=True).train(training)
    same_run(tr.wrap(model, NOTHING), model, images_for(model))


@pytest.mark.parametrize("form", FORMS)
def test_opened(form: str) -> None:
    model = build(form).double().eval()
    same_run(tr.wrap(model, OPENED), model, images_for(model), tolerance=1e-10)
    for fused in (True, False):
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        blocks_agree(model, images_for(model))


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("hf")])
def test_opened_in_training(form: str) -> None:
    # The branches' heads are taken together, so attention dropout draws in another order; the
    # other kinds of dropout do not.
    more = {"attn_drop_rate": 0.0} if "things" in form else {}
    model = build(form, dropout=True, **more).double().train()
    blocks_agree(model, images_for(model, 4))


@pytest.mark.parametrize("form", FORMS)
def test_tokens_go(form: str) -> None:
    model = build(form).train()
    images = images_for(model)
    reduced = tr.wrap(model, SOME)
    output, trace = reduced.run_with_trace(images)
    info = reduced.info
    assert trace.grid == info.grid
    assert trace.tokens_per_layer == tuple(
        info.num_patches - 2 * (i + 1) for i in range(info.depth)
    )
    assert trace.features[-1].shape[1] == info.num_prefix + trace.tokens_per_layer[-1]
    # Every token is where it says: its place on the grid is its own.
    assert all(len(set(row)) == len(row) for row in trace.index.tolist())
    assert 0 <= int(trace.index.min()) <= int(trace.index.max()) < info.num_patches
    answer(output).square().sum().backward()
    learned = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert all(grad.isfinite().all() for grad in learned.values())
    tables = [n for n, _ in model.named_parameters() if n.endswith(("bias_table", "rope.freqs"))]
    assert all(bool(learned[name].abs().sum() > 0) for name in tables)
    reduced.eval()
    with torch.no_grad():
        got, expected = answer(reduced(images)), answer(model(images))
        assert got.shape != expected.shape or (got - expected).abs().max() > 1e-4
        for method in (tr.strategy("tome", r=3), tr.strategy("topk", layers=(0, 1), keep_rate=0.6)):
            try:
                fewer = reduced.with_strategy(method)
            except ConfigError:
                assert info.cls_index is None
                continue
            logits, trace = fewer.run_with_trace(images)
            assert answer(logits).isfinite().all()
            assert trace.tokens_per_layer == tuple(x.tokens_out for x in fewer.cost().layers)


def slow(form: str) -> Any:
    return pytest.param(form, marks=pytest.mark.slow)


# Of each family what no test of the recipes has; by default the first.
FEW = [
    "eva: mixed",
    *map(slow, ("beit: own bias", "beit: shared bias", "hf: Dinov2WithRegistersModel")),
    slow("hf: DeiTForImageClassificationWithTeacher"),
]


@untrained
@pytest.mark.parametrize("recipe", tr.list_strategies())
@pytest.mark.parametrize("form", FEW)
def test_every_recipe(form: str, recipe: str) -> None:
    model = build(form).double().eval()
    reduced, images = tr.wrap(model, recipe), images_for(model)
    with torch.no_grad():
        output, trace = reduced.run_with_trace(images)
        cost = reduced.cost()
        if not reduced.strategy.selector.adaptive(1, 3):
            assert trace.tokens_per_layer == tuple(layer.tokens_out for layer in cost.layers)
            # Parts with weights may outweigh the tokens of so small a model.
            assert cost.gmacs - cost.learned / 1e9 < tr.gmacs(model)
        # Tokens of noise are not alike, and what goes in the last block changes no CLS token.
        if recipe not in ("algm", "diffrate"):
            assert not torch.allclose(answer(output), answer(model(images)))
        # The head looks at what remains of an image, and at nothing of its neighbours.
        alone = torch.cat([answer(reduced(image[None])) for image in images])
        torch.testing.assert_close(alone, answer(output), rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", ["vit: gated, norms", "eva: mixed", "beit: both", "hf: ViTModel"])
@pytest.mark.parametrize("recipe", ["gtp", "tome", "random"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precisions(form: str, recipe: str, dtype: torch.dtype) -> None:
    model = build(form).eval()
    images, reduced = images_for(model), tr.wrap(model, recipe)
    with torch.no_grad():
        expected = answer(reduced(images))
        if dtype == torch.bfloat16:
            with torch.autocast("cpu", dtype):
                same(answer(tr.wrap(model, NOTHING)(images)), answer(model(images)))
                low = answer(reduced(images))
            assert low.dtype == dtype or form.startswith(("beit", "hf"))
            if recipe == "random":  # the others may choose other tokens
                same(low.float(), expected, 0.1)
        model.to(dtype)
        images = images.to(dtype)
        same(answer(tr.wrap(model, NOTHING)(images)), answer(model(images)))
        assert answer(reduced(images)).dtype == dtype
        assert answer(reduced(images)).isfinite().all()


@pytest.mark.parametrize(
    "form", ["vit: pre-norm block", "eva: mixed", "beit: own bias", "lvvit: plain", "hf: ViTModel"]
)
@pytest.mark.parametrize("recipe", ["gtp", "tome", "mstm"])
@untrained
def test_gradient_checkpointing(form: str, recipe: str) -> None:
    reduced = []
    for saves in (False, True):
        model: Any = build(form, dropout=not form.startswith("hf")).train()
        torch.manual_seed(0)
        reduced.append(tr.wrap(model, recipe))
        if saves and form.startswith("hf"):
            # Version 6 is to know the second name only.
            old, new = "gradient_checkpointing_enable", "activation_checkpointing_enable"
            getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})
        elif saves:
            reduced[-1].set_grad_checkpointing()
        assert reduced[-1].backbone.checkpoint_blocks == saves
    plain, saving = reduced
    same_run(saving, plain, images_for(plain))
    logits, trace = saving.run_with_trace(images_for(plain))
    answer(logits).sum().backward()
    assert len(trace.states) == saving.info.depth
    layers = [step.layer for step in trace.steps]
    assert layers == sorted(set(layers))


def test_distilled() -> None:
    model = lively(VisionTransformerDistilled(**TINY)).train()
    images = images_for(model)
    reduced, fewer = tr.wrap(model, NOTHING), tr.wrap(model, SOME)
    for apart in (False, True):
        reduced.set_distilled_training(apart)
        same_run(reduced, model, images)
        assert isinstance(fewer(images), tuple) == apart
    same_run(reduced.eval(), model, images)
    assert fewer(images).shape == (2, 5)
    assert (reduced.info.num_prefix, reduced.info.cls_index) == (2, 0)


@pytest.mark.parametrize("form", [*FEW, slow("lvvit: plain")])
def test_one_graph(form: str) -> None:
    model = build(form, **{} if form.startswith("hf") else {"depth": 1}).eval()
    reduced, images = tr.wrap(model, SOME), images_for(model)
    model(images)
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled: Any = torch.compile(reduced, fullgraph=True, backend=graphs)
    with torch.no_grad():
        same(answer(compiled(images)), answer(reduced(images)))
    assert graphs.frame_count == 1
    torch._dynamo.reset()


def test_removal_in_parallel_blocks_waits_for_the_end() -> None:
    model = build("vit: parallel scaling").eval()
    assert isinstance(model.blocks[0], ParallelScalingBlock)
    strategy = tr.Strategy("Random", schedule=tr.PerLayer((5, 0)))
    with torch.no_grad():
        _, trace = tr.wrap(model, strategy).run_with_trace(images_for(model))
        x = model.blocks[0](model._pos_embed(model.patch_embed(images_for(model))))
    kept = trace.index_per_layer[0] + model.num_prefix_tokens
    same(trace.features[0][:, 1:], x.gather(1, kept[..., None].expand(-1, -1, 32)))
