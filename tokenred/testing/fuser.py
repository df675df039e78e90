"""The promises of a fuser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.state import TokenState
from tokenred.reduced.trace import fuser_matrix
from tokenred.strategies.base import Fuser, fusers
from tokenred.testing import draw
from tokenred.testing.compare import require, require_close, require_same, untouched
from tokenred.testing.runner import Suite, built
from tokenred.testing.sample import Reduction, alone, model_info

__all__ = ["check_fuser"]


def check_fuser(
    fuser: Fuser | str,
    *,
    partners: bool | None = None,
    max_examples: int = 25,
    derandomize: bool = True,
) -> None:
    """Hold a fuser to its contract and to the traits that it declares.

    ``n − P + extra`` image tokens for every P from 0 to n−1, the kept ones in order and under
    their positions; prefix tokens as they were; linear in the tokens, with the weights that a
    trace records; sizes conserved where `conserves_size`; gradients reach every kept token; inputs
    left alone; the same answer twice, and for an image alone as in a batch.

    Args:
        fuser: an instance, or a registered name.
        partners: whether the selections tried name partners; None for both kinds.
        max_examples: examples drawn for each promise.
        derandomize: draw the same examples in every run.

    Raises:
        AssertionError: with the promise that does not hold, and the smallest example found.
    """
    part = fusers.create(fuser)
    suite = Suite("fuser", part, max_examples, derandomize)
    traits = part.traits
    cls, size = traits.needs_cls, part.uses_size
    loose = draw.samples(needs_cls=cls, needs_size=size)
    # One image alone, or no graph where it matters, would prove nothing.
    precise = draw.samples(
        needs_cls=cls, needs_size=size, needs_graph=part.uses_graph, min_batch=2,
        dtypes=(torch.float64,),
    )  # fmt: skip
    fine = draw.smooth_samples(needs_cls=cls, needs_size=size)
    anything = draw.reductions(loose, partners=partners)
    double = draw.reductions(precise, partners=partners)
    smooth = draw.reductions(fine, partners=partners)
    # Without partners a fuser may choose them by the features, and is linear after that only.
    decided = draw.reductions(fine, partners=partners is not False)
    suite.refuses_what_it_must(model_info(8, (4, 4)))
    suite.holds("n − P + extra image tokens, with their positions and sizes", anything, _layout)
    suite.holds("prefix tokens neither move nor change", anything, _prefix)
    suite.holds("inputs are not modified", anything, _inputs_stay)
    suite.holds("linear in the tokens", decided, _linear)
    suite.holds("the weights that a trace records are those that are applied", decided, _recorded)
    suite.holds("gradients reach every kept token", smooth, _gradient)
    if traits.conserves_size:
        suite.holds("conserves_size: the sizes add up to the same", anything, _sizes)
    if traits.deterministic:
        suite.holds("deterministic: the same input, the same tokens", anything, _twice)
        suite.holds("an image is treated alone as in a batch", double, _alone)
    if traits.equivariant:
        suite.holds("equivariant: the order of the tokens does not matter", smooth, _relabelled)
    if not traits.needs_grid:
        suite.holds("the grid is not read unless needs_grid is declared", smooth, _any_grid)


def _fused(part: Fuser, case: Reduction, state: TokenState | None = None) -> TokenState:
    made, attention = built(part, case.sample)
    return _run(made, case, attention, case.sample.state if state is None else state)


def _run(made: Any, case: Reduction, attention: AttentionStats, state: TokenState) -> TokenState:
    with torch.no_grad():
        after = made(state, case.selection, state.graph, attention)
    if not isinstance(after, TokenState):
        raise AssertionError(f"expected a TokenState, got {after!r}")
    return after


def _layout(part: Fuser, case: Reduction) -> None:
    before, after = case.sample.state, _fused(part, case)
    kept = case.selection.keep.shape[1]
    count = kept + part.extra
    b, _, c = before.x.shape
    expected = (b, before.num_prefix + count, c)
    require(
        tuple(after.x.shape) == expected and after.x.dtype == before.x.dtype,
        f"expected tokens of shape {expected} and {before.x.dtype}, "
        f"got {tuple(after.x.shape)} and {after.x.dtype}",
    )
    require(bool(after.x.isfinite().all()), "some tokens are not finite")
    places = before.index.gather(1, case.selection.keep)
    index = torch.cat((places, places.new_full((b, part.extra), -1)), dim=1)
    if after.index.shape != index.shape or bool((after.index != index).any()):
        raise AssertionError(
            f"expected index {index.tolist()} (kept tokens in order, −1 for added ones), "
            f"got {after.index.tolist()}"
        )
    if before.size is not None:
        size = after.size
        require(
            size is not None and tuple(size.shape) == expected[:2],
            f"expected sizes of shape {expected[:2]}, "
            f"got {None if size is None else tuple(size.shape)}",
        )
    for name in ("num_prefix", "grid", "cls_index", "layer"):
        require(getattr(after, name) == getattr(before, name), f"{name} changed")


def _prefix(part: Fuser, case: Reduction) -> None:
    before, after = case.sample.state, _fused(part, case)
    require_same(before.prefix, after.prefix, "prefix tokens before and after")
    if before.size is not None and after.size is not None:
        p = before.num_prefix
        require_close(after.size[:, :p], before.size[:, :p], "prefix sizes before and after")


def _inputs_stay(part: Fuser, case: Reduction) -> None:
    made, attention = built(part, case.sample)
    state, selection = case.sample.state, case.selection
    with untouched(state=state, selection=selection, attention=attention):
        _run(made, case, attention, state)


def _linear(part: Fuser, case: Reduction) -> None:
    state = case.sample.state
    made, attention = built(part, case.sample)
    other = torch.randn(
        state.x.shape, generator=torch.Generator().manual_seed(1), dtype=state.x.dtype
    )

    def through(x: Tensor) -> Tensor:
        return _run(made, case, attention, replace(state, x=x)).x

    require_close(
        through(2.0 * state.x - 0.5 * other),
        2.0 * through(state.x) - 0.5 * through(other),
        "f(2x − y/2) and 2 f(x) − f(y)/2",
        scale=100.0,
    )


def _recorded(part: Fuser, case: Reduction) -> None:
    state = case.sample.state
    made, attention = built(part, case.sample)
    with torch.no_grad():
        matrix = fuser_matrix(made, state, case.selection, attention).to(state.x.dtype)
    after = _run(made, case, attention, state)
    require_close(matrix @ state.image, after.image, "recorded weights × tokens, and the result")
    if made.network is None:  # which may take tokens of its own width only
        n, p = state.num_tokens, state.num_prefix
        units = torch.eye(n, dtype=state.x.dtype)
        probe = torch.cat((units.new_zeros(p, n), units)).expand(state.x.shape[0], -1, -1)
        seen = _run(made, case, attention, replace(state, x=probe)).image
        require_close(matrix, seen, "recorded weights, and what becomes of unit vectors")


def _gradient(part: Fuser, case: Reduction) -> None:
    state = case.sample.state
    made, attention = built(part, case.sample)
    x = state.x.clone().requires_grad_()
    after = made(replace(state, x=x), case.selection, state.graph, attention)
    require(after.x.requires_grad, "the result is cut off from the tokens")
    (grad,) = torch.autograd.grad(after.x.square().sum(), x)
    require(bool(grad.isfinite().all()), "some gradients are not finite")
    p = state.num_prefix
    kept = grad[:, p:].gather(1, case.selection.keep[..., None].expand(-1, -1, grad.shape[2]))
    reached = torch.cat((grad[:, :p], kept), dim=1).abs().amax(dim=-1) > 0
    require(bool(reached.all()), "no gradient reaches some prefix or kept tokens")


def _sizes(part: Fuser, case: Reduction) -> None:
    before, after = case.sample.state, _fused(part, case)
    if before.size is not None:
        require(after.size is not None, "the sizes are gone")
        assert after.size is not None
        require_close(
            after.size.double().sum(dim=1).to(before.size.dtype),
            before.size.double().sum(dim=1).to(before.size.dtype),
            "sums of the sizes after and before",
        )


def _twice(part: Fuser, case: Reduction) -> None:
    require_same(_fused(part, case), _fused(part, case), "asked twice")


def _alone(part: Fuser, case: Reduction) -> None:
    made, attention = built(part, case.sample)
    state = case.sample.state
    together = _run(made, case, attention, state)
    for i in range(state.x.shape[0]):
        single, stats = alone(state, attention, i)
        one = _run(made, replace(case, selection=case.image(i)), stats, single)
        require_close(one.x, together.x[i : i + 1], f"image {i} alone and in the batch")


def _relabelled(part: Fuser, case: Reduction) -> None:
    """The same tokens in another order, the selection pointing at them where they are now."""
    order = case.sample.some_order()
    there = Reduction(case.sample.permuted(order), case.pointing_through(order), case.label)
    here, moved = _fused(part, case), _fused(part, there)
    require_close(moved.x, here.x, "tokens that came in another order, and not")
    if here.size is not None and moved.size is not None:
        require_close(moved.size, here.size, "their sizes")


def _any_grid(part: Fuser, case: Reduction) -> None:
    state = case.sample.state
    line = replace(state, grid=(1, state.num_patches))
    one, other = _fused(part, case), _fused(part, case, line)
    require_same(one.x, other.x, "on its grid, and with the grid called a single row")
