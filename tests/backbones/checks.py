"""How two models are compared, whole and block by block."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import answer, tower_of
from tokenred.attention import AttentionSpec, FusedEngine, PlainEngine, ScoreMod, attend
from tokenred.core.state import TokenState

COUNTS = (3, 4, 2)
NOTHING = tr.strategy("gtp", P=0)


class Untouched(ScoreMod):
    """Changes nothing, but opens every block."""

    def __call__(self, logits: Tensor, state: TokenState) -> Tensor:
        return logits


OPENED = tr.Strategy("Random", score_mods=(Untouched(),))


def same(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Two results agree, relative to the largest value."""
    if not isinstance(expected, Tensor):
        assert type(got) is type(expected)
        for one, other in zip(got, expected, strict=True):
            same(one, other, tolerance)
        return
    largest = expected.abs().max().item()
    assert largest > 0
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * largest)


def same_run(ours: nn.Module, theirs: nn.Module, images: Tensor, tolerance: float = 1e-5) -> None:
    """Two models give the same features, outputs and gradients from one seed."""
    got, expected = _run(ours, images), _run(theirs, images)
    same(got[0], expected[0], tolerance)
    same(got[1], expected[1], tolerance)
    assert got[2].keys() == expected[2].keys()
    largest = max(g.abs().max().item() for g in expected[2].values())
    for name, grad in expected[2].items():
        # A gradient that is zero but for rounding is measured by the others.
        bound = tolerance * max(grad.abs().max().item(), 1e-2 * largest)
        worst = (got[2][name] - grad).abs().max().item()
        assert worst <= bound, f"gradient of {name}: off by {worst}, allowed {bound}"


def _run(model: Any, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)  # all draw the same dropout
    if hasattr(model, "forward_features"):
        features = model.forward_features(images)
    else:
        features = tower_of(model)(images).last_hidden_state
    torch.manual_seed(1)
    output = answer(model(images))
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype)
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad((output.flatten() * weights).sum(), parameters, allow_unused=True)
    found = {n: g for n, g in zip(names, grads, strict=True) if g is not None}
    return features, output, found


def blocks_agree(model: Any, images: Tensor, tolerance: float = 1e-12) -> None:
    """Each block in its steps, with nothing done between them, is what it is as a whole."""
    backbone = tr.wrap(model, NOTHING).backbone
    with torch.no_grad():
        embedded = backbone.embed(images)
        state = TokenState(
            embedded.x,
            embedded.index,
            backbone.info.num_prefix,
            embedded.grid,
            positions=embedded.positions,
        )
        for layer, block in enumerate(backbone.blocks):
            state = replace(state, layer=layer)
            for engine in (PlainEngine(), FusedEngine()):
                torch.manual_seed(7)
                whole = block.run(state)
                torch.manual_seed(7)
                qkv = block.qkv_of(state)
                out, _ = attend(qkv, AttentionSpec(), state, (engine,))
                steps = block.after_mlp(block.after_attention(state.x, out, qkv))
                # The residual would hide what is missing beside it.
                same(steps - state.x, whole - state.x, tolerance)


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
