"""What a wrapped model gives back: traces, features of blocks, what losses need."""

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


COMBINATIONS = [
    dict(
        zip(("indices", "return_prefix_tokens", "norm", "stop_early", "output_fmt"), c, strict=True)
    )
    for c in itertools.product(
        (None, 2, (2, 0), [-1]),
        (False, True),
        (False, True),
        (False, True),
        ("NCHW", "NLC"),
    )
]


@pytest.mark.parametrize(("reg_tokens", "class_token"), [(0, True), (2, True), (0, False)])
@pytest.mark.parametrize(("only", "as_dict"), [(False, False), (True, False), (False, True)])
def test_intermediates_as_timm(
    reg_tokens: int, only: bool, as_dict: bool, class_token: bool
) -> None:
    pool = "token" if class_token else "avg"
    model = _model(reg_tokens=reg_tokens, class_token=class_token, global_pool=pool)
    reduced = tr.wrap(model, tr.strategy("gtp", P=0))
    for chosen in COMBINATIONS:
        arguments = {**chosen, "intermediates_only": only, "output_dict": as_dict}
        got = reduced.forward_intermediates(_images(), **arguments)
        expected = model.forward_intermediates(_images(), **arguments)
        _compare(got, expected)


def _compare(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, Tensor):
        torch.testing.assert_close(got, expected)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            _compare(got[key], expected[key])
    else:
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            _compare(one, other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", [False, True])
def test_intermediates_are_full_maps(method: str, norm: bool) -> None:
    reduced = tr.wrap(_model(), METHODS[method])
    final, maps = reduced.forward_intermediates(_images(), norm=norm)
    assert [tuple(m.shape) for m in maps] == [(2, 32, 4, 3)] * 3
    assert all(m.isfinite().all() for m in maps)
    # No patch is left empty.
    assert all(m.abs().sum(dim=1).min() > 0 for m in maps)
    torch.testing.assert_close(final, reduced.forward_features(_images()))
    _, trace = reduced.run_with_trace(_images())
    _, tokens = reduced.forward_intermediates(_images(), output_fmt="NLC", norm=norm)
    assert tuple(t.shape[1] for t in tokens) == trace.tokens_per_layer
    early = reduced.forward_intermediates(
        _images(), indices=[0], norm=norm, stop_early=True, intermediates_only=True
    )
    torch.testing.assert_close(early[0], maps[0])
    # A patch that is still there has its own token.
    place = trace.index_per_layer[0][0, 0]
    if place >= 0 and method != "tome":
        torch.testing.assert_close(maps[0][0].flatten(1)[:, place], tokens[0][0, 0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"indices": 0},
        {"indices": 4},
        {"indices": [3]},
        {"indices": [-4]},
        {"indices": []},
        {"output_fmt": "NHWC"},
        {"attn_mask": torch.ones(1)},
        {"is_causal": True},
    ],
    ids=str,
)
def test_intermediates_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tr.wrap(_model(), GTP).forward_intermediates(_images(), **arguments)


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
@pytest.mark.parametrize("prefix", [False, True])
def test_unreduce(method: str, fill: str, prefix: bool) -> None:
    reduced = tr.wrap(_model(), METHODS[method])
    _, trace = reduced.run_with_trace(_images())
    features = trace.features[-1]
    image = features[:, 1:]
    full = trace.unreduce(features if prefix else image, fill)
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


def test_nearest_is_near() -> None:
    _, trace = tr.wrap(_model(), PRUNE).run_with_trace(_images())
    place = trace.unreduce(trace.index[..., None].float(), "nearest")[..., 0].long()
    at = torch.stack((torch.arange(12) // 3, torch.arange(12) % 3), dim=-1).float()
    distance = torch.cdist(at, at)
    for b in range(2):
        nearest = distance[:, trace.index[b]].min(dim=1).values
        torch.testing.assert_close(distance[torch.arange(12), place[b]], nearest)


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
