"""``forward_intermediates`` as timm's, and full maps from fewer tokens."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import ConfigError
from tokenred.reduced.kept import FILLS
from tokenred.reduced.model import block_numbers

NOTHING = tr.strategy("gtp", P=0)
METHODS = {
    "gtp": tr.strategy("gtp", P=2, M=3),
    "prune": tr.Strategy("MixedAttn", schedule=3),
    "evit": tr.strategy("evit", layers=(0, 1), keep_rate=0.6),
    "tome": tr.strategy("tome", r=3),
    "idle": tr.strategy("idlevit", layers=(1, 2), keep_ratios=(0.6, 0.4)),
    "before": tr.Strategy("Random", schedule=3, where="before_block"),
}
ARGUMENTS = {
    "indices": (None, 2, (2, 0, 2), [-1]),
    "return_prefix_tokens": (False, True),
    "norm": (False, True),
    "stop_early": (False, True),
    "output_fmt": ("NCHW", "NLC"),
    "intermediates_only": (False, True),
    "output_dict": (False, True),
}
COMBINATIONS = [
    dict(zip(ARGUMENTS, c, strict=True)) for c in itertools.product(*ARGUMENTS.values())
]


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    tiny = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    model = VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()
    for p in model.parameters():
        p.data += torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.1)
    return model


def _images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 24, generator=torch.Generator().manual_seed(1))


FORMS: dict[str, dict[str, Any]] = {
    "cls": {},
    "registers": {"reg_tokens": 2},
    "no prefix": {"class_token": False, "global_pool": "avg"},
}


@pytest.mark.parametrize("form", FORMS)
def test_as_timm(form: str) -> None:
    # Every combination on one form; the others differ in the prefix alone.
    combinations = COMBINATIONS if form == "registers" else COMBINATIONS[::5]
    model = _model(**FORMS[form])
    reduced = tr.wrap(model, NOTHING)
    with torch.no_grad():
        for arguments in combinations:
            got = reduced.forward_intermediates(_images(1), **arguments)
            _compare(got, model.forward_intermediates(_images(1), **arguments))


def test_arguments_by_place() -> None:
    model, places = _model(), (2, True, True, True, "NLC", True, False)
    got = tr.wrap(model, NOTHING).forward_intermediates(_images(), *places)
    _compare(got, model.forward_intermediates(_images(), *places))


@pytest.mark.parametrize("arguments", [
    {}, {"n": (0, 2), "reshape": True}, {"n": 2, "norm": True},
    {"n": [1], "return_prefix_tokens": True},
], ids=str)  # fmt: skip
def test_under_the_name_of_dino(arguments: dict[str, Any]) -> None:
    model = _model(reg_tokens=1)
    got = tr.wrap(model, NOTHING).get_intermediate_layers(_images(), **arguments)
    _compare(got, model.get_intermediate_layers(_images(), **arguments))


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
def test_full_maps(method: str, norm: bool) -> None:
    reduced = tr.wrap(_model(), METHODS[method])
    final, maps = reduced.forward_intermediates(_images(), norm=norm)
    assert [tuple(m.shape) for m in maps] == [(2, 32, 4, 3)] * 3
    # No patch is left empty.
    assert all(m.abs().sum(dim=1).min() > 0 for m in maps)
    torch.testing.assert_close(final, reduced.forward_features(_images()))
    torch.testing.assert_close(reduced.forward_head(final), reduced(_images()))
    _, trace = reduced.run_with_trace(_images())
    last_norm = reduced.backbone.norm if norm else None
    for layer, found in enumerate(maps):
        tokens = trace.features[layer] if last_norm is None else last_norm(trace.features[layer])
        expected = trace.cut(layer).unreduce(tokens, norm=last_norm)
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected)
    _, tokens = reduced.forward_intermediates(_images(), output_fmt="NLC", norm=norm)
    for flat, found in zip(tokens, maps, strict=True):
        torch.testing.assert_close(flat, found.flatten(2).transpose(1, 2))
    early = reduced.forward_intermediates(
        _images(), indices=[0], norm=norm, stop_early=True, intermediates_only=True
    )
    torch.testing.assert_close(early[0], maps[0])


@pytest.mark.parametrize("method", METHODS)
def test_tokens_of_the_block(method: str) -> None:
    reduced = tr.wrap(_model(), METHODS[method])
    _, trace = reduced.run_with_trace(_images())
    found = reduced.forward_intermediates(
        _images(), output_fmt="NLC", unreduce=False, intermediates_only=True
    )
    for tokens, expected in zip(found, trace.features, strict=True):
        torch.testing.assert_close(tokens, expected[:, 1:])


def test_fill() -> None:
    reduced = tr.wrap(_model(), METHODS["prune"])
    _, trace = reduced.run_with_trace(_images())
    for fill in FILLS:
        (found,) = reduced.forward_intermediates(
            _images(), 1, output_fmt="NLC", intermediates_only=True, fill=fill
        )
        torch.testing.assert_close(found, trace.unreduce(trace.features[-1], fill))


def test_stop_early_runs_no_block_too_many() -> None:
    reduced, seen = tr.wrap(_model(), METHODS["prune"]), []
    for i, block in enumerate(reduced.blocks):
        block.norm1.register_forward_hook(lambda *_, i=i: seen.append(i))
    reduced.forward_intermediates(_images(), [1], stop_early=True)
    assert seen == [0, 1]


def test_adaptive_counts() -> None:
    reduced = tr.wrap(_model(global_pool="avg"), tr.strategy("ats"))
    images = _images(4) * torch.logspace(-2, 1, 4)[:, None, None, None]
    assert not bool(reduced.kept_tokens(images).alive.all())
    final, maps = reduced.forward_intermediates(images)
    assert [tuple(m.shape) for m in maps] == [(4, 32, 4, 3)] * 3
    torch.testing.assert_close(reduced.forward_head(final), reduced(images))
    for i in range(4):
        alone = reduced.forward_intermediates(images[i : i + 1], intermediates_only=True)
        for one, all_of_them in zip(alone, maps, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i])


@pytest.mark.parametrize("arguments", [
    {"indices": 0}, {"indices": 4}, {"indices": [3]}, {"indices": [-4]}, {"indices": []},
    {"output_fmt": "NHWC"}, {"fill": "mean"}, {"unreduce": False}, {"is_causal": True},
    {"attn_mask": torch.ones(1)},
], ids=str)  # fmt: skip
def test_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tr.wrap(_model(), METHODS["gtp"]).forward_intermediates(_images(), **arguments)


def test_block_numbers() -> None:
    assert block_numbers(None, 3) == [0, 1, 2]
    assert block_numbers(2, 3) == [1, 2]
    assert block_numbers((-1, 0, 2), 3) == [0, 2]
