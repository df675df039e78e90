"""A wrapped model to the rest of the world: what is set, found and printed."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr

GTP = tr.strategy("gtp", P=2, M=3)


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()


def _images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _same_weights(one: nn.Module, other: nn.Module) -> None:
    ours = dict(one.named_parameters())
    assert ours
    theirs = dict(other.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)


@pytest.mark.parametrize("through", ["reduced", "base"])
def test_reset_classifier(through: str) -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    (reduced if through == "reduced" else model).reset_classifier(7)
    assert reduced.head is model.head
    assert reduced(_images()).shape == model(_images()).shape == (2, 7)
    assert reduced.state_dict()["head.weight"].shape == (7, 32)
    assert any(p is model.head.weight for p in reduced.parameters())


def test_assigning_reaches_the_base() -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    reduced.head = nn.Linear(32, 9)
    reduced.cls_token = nn.Parameter(torch.ones(1, 1, 32))
    reduced.grad_checkpointing = True
    assert model.head.out_features == 9
    assert bool((model.cls_token == 1).all())
    assert model.grad_checkpointing
    _same_weights(reduced, model)
    reduced.note = "mine"
    assert not hasattr(model, "note")
    with pytest.raises(AttributeError, match=r"ReducedViT.*no attribute 'nothing'"):
        _ = reduced.nothing


def test_functional_call_reaches_every_parameter() -> None:
    reduced = tr.wrap(_model(), GTP)
    weights = {k: torch.randn_like(v) * 0.2 for k, v in reduced.named_parameters()}
    other = _model()
    other.load_state_dict(weights)
    expected = tr.wrap(other, GTP)(_images())
    got = torch.func.functional_call(reduced, weights, (_images(),))
    torch.testing.assert_close(got, expected)


def test_timm_finds_what_it_looks_for() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    reduced = tr.wrap(model, GTP)
    assert resolve_model_data_config(reduced) == resolve_model_data_config(model)
    assert reduced.num_classes == 3
    assert reduced.no_weight_decay() == model.no_weight_decay()
    assert reduced.get_classifier() is model.head
    assert {"blocks", "forward_head", "run_with_trace"} <= set(dir(reduced))


def test_with_strategy_and_wrapping_again() -> None:
    model = _model()
    first = tr.wrap(model, GTP, engine="plain", check_finite=True)
    for second in (first.with_strategy("topk"), tr.wrap(first, "topk")):
        assert second.base is model
        _same_weights(second, model)
        assert second.strategy == tr.strategy("topk")
        expected = tr.wrap(model, "topk")(_images())
        torch.testing.assert_close(second(_images()), expected)
    assert first.with_strategy(GTP).check_finite
    assert first.strategy == GTP


def test_repr_has_the_layers() -> None:
    text = repr(tr.wrap(_model(), GTP))
    assert "MixedAttn" in text
    assert "Propagate" in text
    for row in (["0", "16", "2", "14"], ["1", "14", "2", "12"], ["2", "12", "2", "10"]):
        assert any(line.split()[:4] == row for line in text.splitlines())
    assert "GMACs" in text
