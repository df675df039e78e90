"""Blocks run in their steps, and models run with tokens masked that others remove."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import tokenred as tr
from tokenred.attention import AttentionSpec, Engine, attend
from tokenred.backbones import BlockAdapter
from tokenred.core.state import TokenState

COUNTS = (3, 4, 2)


def in_steps(
    block: BlockAdapter, state: TokenState, layer: int, engine: Engine
) -> tuple[Tensor, Tensor]:
    """The tokens after a block, by its steps with nothing done between them, and by timm."""
    state = replace(state, layer=layer)
    heads = block.qkv_of(state)
    out, _ = attend(heads, AttentionSpec(), state, (engine,))
    whole = block.run(state)
    assert whole is not None
    return block.after_mlp(block.after_attention(state.x, out, heads)), whole


def removed_and_masked(
    model: Any, images: Tensor, run: Callable[[int, Tensor, Tensor], Tensor], **method: Any
) -> tuple[Tensor, Tensor]:
    """The last tokens of a model of three blocks that loses tokens in each, and of timm's own.

    In timm's model nobody attends, from the next block on, to a token that is gone.

    Args:
        model: the model.
        images: a batch.
        run: ``(layer, x, bias)`` → the tokens after timm's block, ``bias (b, 1, 1, N)`` added to
            the logits.
        method: of the strategy.
    """
    strategy = tr.Strategy(
        **{"scorer": "Random", "fuser": "prune", "schedule": tr.PerLayer(COUNTS)} | method
    )
    reduced = tr.wrap(model, strategy)
    with torch.no_grad():
        _, trace = reduced.run_with_trace(images)
        embedded = reduced.backbone.embed(images)
        x, p = embedded.x, model.num_prefix_tokens
        bias = x.new_zeros(*x.shape[:2])
        for layer, alive in enumerate(trace.index_per_layer):
            x = run(layer, x, bias[:, None, None])
            bias = torch.full_like(bias, -torch.inf)
            bias[:, :p] = 0
            bias.scatter_(1, alive + p, 0.0)
    # They are not the first ones, or a wrong position would not show.
    assert (trace.index != torch.arange(trace.index.shape[1])).any()
    prefix = torch.arange(p).expand(len(x), p)
    left = torch.cat((prefix, trace.index + p), dim=1)
    return trace.features[-1], x[torch.arange(len(x))[:, None], left]
