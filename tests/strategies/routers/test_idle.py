import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tests.strategies.recipes.checks import WITH_CLS, images, in_training, wrapped
from tokenred.core.errors import ConfigError
from tokenred.models.rebuild import weightless
from tokenred.strategies.routers import Idle


def _model(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    return VisionTransformer(**{**sizes, "depth": 4, **options}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (12, [None] * 4 + [137] * 3 + [96] * 3 + [67] * 2),
        (16, [None] * 4 + [137] * 4 + [96] * 4 + [67] * 4),
        (20, [None] * 5 + [137] * 5 + [96] * 5 + [67] * 5),
        (4, [None, 137, 96, 67]),
    ],
)
def test_counts_of_the_paper(depth: int, expected: list[int | None]) -> None:
    assert [Idle().active(layer, depth, 196) for layer in range(depth)] == expected


def test_all_tokens_survive_and_the_idle_pass_unchanged() -> None:
    model = _model(reg_tokens=2)
    reduced = tr.wrap(model, tr.strategy("idlevit", keep_ratios=(0.5, 0.25), layers=(1, 3)))
    images = torch.randn(3, 3, 32, 32)
    _, trace = reduced.run_with_trace(images)
    assert trace.tokens_per_layer == (16, 16, 16, 16)
    assert torch.equal(trace.index, torch.arange(16).expand(3, 16))
    assert torch.equal(trace.owners(), trace.index)
    still = (trace.features[1] == trace.features[0]).all(dim=-1)
    assert still[:, 3:].sum(dim=1).tolist() == [8, 8, 8]
    assert not still[:, :3].any()
    still = (trace.features[3] == trace.features[2]).all(dim=-1)
    assert still.sum(dim=1).tolist() == [12, 12, 12]


def test_everybody_active_is_the_model_itself() -> None:
    model, images = _model(), torch.randn(2, 3, 32, 32)
    reduced = tr.wrap(model, tr.strategy("idlevit", keep_ratios=1.0))
    assert torch.equal(reduced(images), model(images))


def test_the_cost_is_of_those_that_pass() -> None:
    with weightless():
        model = timm.create_model("deit_small_patch16_224")
    reduced = tr.wrap(model, "idlevit")
    assert 2.8 < tr.gmacs(reduced) <= 3.25
    assert reduced.cost().overhead_gmacs > 0
    assert "(137 active)" in repr(reduced)


# ---------------------------------------------------------------- training


def _trained(form: str = "cls", **options: object) -> tuple[tr.ReducedViT, Tensor]:
    return wrapped(tr.strategy("idlevit", **options), form), images(form)


@pytest.mark.parametrize(("form", "ratio"), [*((form, 0.7) for form in WITH_CLS), ("cls", 0.4)])
def test_the_training_form_is_the_inference_form(form: str, ratio: float) -> None:
    reduced, images = _trained(form, keep_ratios=ratio)
    expected, trace = reduced.run_with_trace(images)
    assert (expected - reduced.base(images)).abs().max() > 1e-3
    in_training(reduced)
    masked, masked_trace = reduced.run_with_trace(images)
    torch.testing.assert_close(masked, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(masked_trace.features, trace.features, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    # The same tokens idled: they are the same to the last bit as before the block.
    for layer in range(1, 4):
        still, still_masked = (
            (t.features[layer] == t.features[layer - 1]).all(dim=-1) for t in (trace, masked_trace)
        )
        assert torch.equal(still, still_masked)


def test_training_hands_on_the_token_cut_of_each_block() -> None:
    found = {}
    for cut in ("both", "inter", "intra", "none"):
        reduced, images = _trained("cls", cut=cut)
        assert set(reduced.forward_train(images)[1]) == {"features", "index"}
        reduced.train()
        aux = reduced.forward_train(images)[1]
        found[cut] = aux.get("token_cut")
        assert aux["features"].shape == (3, 17, 32)
    assert found["none"] is None
    assert found["both"].shape == (3, 3)  # blocks 1 to 3 of 4
    torch.testing.assert_close(found["both"], found["inter"] + found["intra"])
    assert (found["inter"] > 0).all()


def test_the_token_cut_trains_queries_and_keys() -> None:
    reduced, images = _trained("cls")
    reduced.train()
    for _ in range(2):
        reduced.zero_grad()
        reduced.forward_train(images)[1]["token_cut"].sum().backward()
        grad = [block.attn.qkv.weight.grad.clone() for block in reduced.blocks]
        assert all(g.abs().sum() > 0 for g in grad)
        assert reduced.blocks[-1].attn.qkv.weight.grad[64:].abs().sum() == 0  # values of the last
        plain = reduced.pos_embed.grad.clone()
        # And the same through gradient checkpointing.
        reduced.set_grad_checkpointing()
    torch.testing.assert_close(plain, reduced.pos_embed.grad)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="2 keep_ratios for 0 layers"):
        Idle((0.5, 0.5))
    with pytest.raises(ConfigError, match=r"got blocks \[9\]"):
        tr.wrap(_model(), tr.strategy("idlevit", keep_ratios=(0.5,), layers=(9,)))
    with pytest.raises(ConfigError, match="CLS token"):
        tr.wrap(_model(class_token=False, global_pool="avg"), "idlevit")
    with pytest.raises(ConfigError, match="both idle and remove"):
        tr.wrap(_model(), tr.strategy("idlevit", schedule=2))
