"""What a wrapped model gives back: traces, and what losses need."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import ConfigError, InputError

GTP = tr.strategy("gtp", P=2, M=3)
PRUNE = tr.Strategy("MixedAttn", schedule=3)
EVIT = tr.strategy("evit", layers=(0, 1), keep_rate=0.6)
METHODS = {"gtp": GTP, "prune": PRUNE, "evit": EVIT, "tome": tr.strategy("tome", r=3)}
METHODS["before"] = tr.Strategy("Random", schedule=3, where="before_block")


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    tiny = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    model = VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()
    for p in model.parameters():
        p.data += torch.randn_like(p) * 0.1
    return model


def _images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
def test_trace(method: str) -> None:
    reduced = tr.wrap(_model(reg_tokens=1), METHODS[method])
    logits, trace = reduced.run_with_trace(_images())
    torch.testing.assert_close(logits, reduced(_images()))
    n = trace.index.shape[1]
    assert trace.tokens_per_layer[-1] == n < 12
    assert torch.equal(trace.index, trace.index_per_layer[-1])
    owner = trace.owners()
    assert owner.shape == (2, 12)
    assert int(owner.max()) == n - 1
    for image in range(2):
        for place, token in enumerate(trace.index[image].tolist()):
            if token >= 0 and method != "tome":
                assert owner[image, token] == place
    lost = int((owner < 0).sum())
    if method in ("prune", "before"):
        assert lost == 2 * (12 - n)
    elif method in ("tome", "evit"):
        assert lost == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fill", ["last", "nearest", "zero"])
def test_unreduce(method: str, fill: str) -> None:
    reduced = tr.wrap(_model(), METHODS[method])
    _, trace = reduced.run_with_trace(_images())
    features = trace.features[-1]
    image = features[:, 1:]
    full = trace.unreduce(image, fill)
    assert torch.equal(trace.unreduce(features, fill), full)
    assert full.shape == (2, 12, 32)
    owner = trace.owners()
    for b, patch in itertools.product(range(2), range(12)):
        if owner[b, patch] >= 0:
            assert torch.equal(full[b, patch], image[b, owner[b, patch]])
        elif fill == "zero":
            assert not full[b, patch].any()
        elif fill == "nearest":
            assert any(torch.equal(full[b, patch], token) for token in image[b])
        else:
            gone = [
                s.left[b, i]
                for s in trace.steps
                for i, at in enumerate(s.left_index[b])
                if at == patch
            ]
            assert torch.equal(full[b, patch], gone[-1])


def test_unreduce_refuses() -> None:
    _, trace = tr.wrap(_model(), PRUNE).run_with_trace(_images())
    with pytest.raises(ConfigError, match="fill"):
        trace.unreduce(trace.features[-1], "mean")
    with pytest.raises(InputError, match="expected the 3 final image tokens"):
        trace.unreduce(trace.features[0])
    with pytest.raises(InputError, match="width"):
        trace.unreduce(trace.features[-1][..., :8], "last")
    assert trace.unreduce(trace.features[-1][..., :8], "zero").shape == (2, 12, 8)


def test_forward_train() -> None:
    reduced = tr.wrap(_model(), GTP).train()
    logits, aux = reduced.forward_train(_images())
    torch.testing.assert_close(logits, reduced(_images()))
    torch.testing.assert_close(aux["features"], reduced.forward_features(_images()))
    _, trace = reduced.run_with_trace(_images())
    assert torch.equal(aux["index"], trace.index)
    logits.sum().backward()
    assert all(p.grad is not None for p in reduced.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reg_tokens", [0, 3])
def test_prefix_tokens_stay_where_they_are(method: str, reg_tokens: int) -> None:
    # With blocks that do nothing, only the reduction moves tokens.
    model = _model(reg_tokens=reg_tokens)
    for block in model.blocks:
        block.attn.proj.weight.data.zero_()
        block.attn.proj.bias.data.zero_()
        block.mlp.fc2.weight.data.zero_()
        block.mlp.fc2.bias.data.zero_()
    with torch.no_grad():
        start = model._pos_embed(model.patch_embed(_images()))[:, : 1 + reg_tokens]
        _, trace = tr.wrap(model, METHODS[method]).run_with_trace(_images())
    for tokens in trace.features:
        torch.testing.assert_close(tokens[:, : 1 + reg_tokens], start, rtol=0, atol=0)


def test_before_the_block() -> None:
    model = _model()
    strategy = tr.Strategy("Random", schedule=tr.PerLayer((4, 0, 0)), where="before_block")
    with torch.no_grad():
        _, trace = tr.wrap(model, strategy).run_with_trace(_images())
        x = model._pos_embed(model.patch_embed(_images()))
        at = trace.index[..., None].expand(-1, -1, 32)
        expected = model.blocks[0](torch.cat((x[:, :1], x[:, 1:].gather(1, at)), dim=1))
    torch.testing.assert_close(trace.features[0], expected)
