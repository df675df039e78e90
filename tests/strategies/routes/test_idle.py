from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tokenred.core.errors import ConfigError
from tokenred.strategies.routes import Idle


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
    import timm

    reduced = tr.wrap(timm.create_model("deit_small_patch16_224"), "idlevit")
    assert 2.8 < tr.gmacs(reduced) <= 3.25
    assert reduced.cost().overhead_gmacs > 0
    assert "(137 active)" in repr(reduced)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="2 keep_ratios for 0 layers"):
        Idle((0.5, 0.5))
    with pytest.raises(ConfigError, match=r"keep_ratios must be a finite number in \(0, 1\]"):
        Idle(0.0)
    with pytest.raises(ConfigError, match=r"blocks \[9\] are asked for"):
        tr.wrap(_model(), tr.strategy("idlevit", keep_ratios=(0.5,), layers=(9,)))
    with pytest.raises(ConfigError, match="CLS token"):
        tr.wrap(_model(class_token=False, global_pool="avg"), "idlevit")
    with pytest.raises(ConfigError, match="both idle and remove"):
        tr.wrap(_model(), tr.strategy("idlevit", schedule=2))
