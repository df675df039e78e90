"""Every timm name that builds an Eva or a Beit, made small: wrapping changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva

import tokenred as tr
from tests.backbones.small import build, images_for, methods_run, names_of, tokens_go
from tests.backbones.steps import in_steps
from tokenred.attention import FusedEngine, PlainEngine

NAMES = names_of(Eva) + names_of(Beit)
# One of each kind, for the methods that not every name has to see.
KINDS = [
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "eva_giant_patch14_clip_224",
    "vit_base_patch16_sapiens2",
    "vit_pe_core_gigantic_patch14_448",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_rope_mixed_224",
]


def test_timm_has_the_names() -> None:
    assert len(names_of(Eva)) >= 20
    assert len(names_of(Beit)) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_name(name: str, lively: Any, untouched: Any, same: Any, same_run: Any) -> None:
    model = lively(build(name))
    images = images_for(model)

    # Nothing removed: the same model, in training as well.
    dense = tr.wrap(model, tr.strategy("gtp", P=0))
    same_run(dense.train(), model, images)
    same_run(dense.eval(), model, images)

    # Nothing removed, but every block opened.
    opened = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    same_run(opened, model, images, tolerance=2e-5)
    with torch.no_grad():
        state, _ = opened._start(images)
        for layer, block in enumerate(opened.backbone.blocks):
            for engine in (PlainEngine(), FusedEngine()):
                at, whole = in_steps(block, state, layer, engine)
                # The residual would hide what is missing beside it.
                same(at - state.x, whole - state.x)

    tokens_go(model, images)


@pytest.mark.parametrize("name", [name for name in KINDS if name in NAMES])
def test_methods(name: str, lively: Any) -> None:
    model = lively(build(name)).eval()
    methods_run(model, images_for(model))
