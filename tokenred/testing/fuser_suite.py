"""The promises of a fuser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.state import TokenState
from tokenred.reduced.trace import fuser_matrix
from tokenred.strategies.base import Fuser, fusers
from tokenred.testing import draw
from tokenred.testing.sample import Reduction
from tokenred.testing.suite import Suite, require, require_close, require_same

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
    suite = _FuserSuite(fusers.create(fuser), max_examples, derandomize)
    part = suite.part
    cls, size = part.traits.needs_cls, part.uses_size
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
    suite.refuses_what_it_must()
    promise = "n − P + extra image tokens, with their positions and sizes"
    suite.holds(promise, anything, suite.layout)
    suite.holds("prefix tokens neither move nor change", anything, suite.prefix)
    suite.keeps_common_promises(anything, again=anything, batches=double, smooth=smooth)
    suite.holds("linear in the tokens", decided, suite.linear)
    promise = "the weights that a trace records are those that are applied"
    suite.holds(promise, decided, suite.recorded)
    suite.holds("gradients reach every kept token", smooth, suite.gradient)
    if part.traits.conserves_size:
        suite.holds("conserves_size: the sizes add up to the same", anything, suite.sizes)


class _FuserSuite(Suite[Fuser, Reduction, TokenState]):
    kind = "fuser"
    answer = "tokens"

    def parts(self, case: Reduction) -> tuple[Any, AttentionStats]:
        """The fuser as it runs on the sample's model, and the statistics that it asks for."""
        made = self.built(case.sample.info, case.sample.state.x.dtype)
        return made, case.sample.attention(made.requires)

    def call(self, case: Reduction) -> tuple[Callable[[], TokenState], Mapping[str, object]]:
        made, attention = self.parts(case)
        state, selection = case.sample.state, case.selection
        given = {"state": state, "selection": selection, "attention": attention}
        return lambda: _checked(made(state, selection, state.graph, attention)), given

    def agree(self, one: TokenState, other: TokenState, what: str, case: Reduction) -> None:
        require_close(one.x, other.x, what)
        if one.size is not None and other.size is not None:
            require_close(one.size, other.size, f"{what}: sizes")

    def image(self, answer: TokenState, i: int) -> TokenState:
        size = None if answer.size is None else answer.size[i : i + 1]
        return replace(
            answer, x=answer.x[i : i + 1], index=answer.index[i : i + 1], size=size, graph=None
        )

    def moved(self, answer: TokenState, order: Int[Tensor, "b n"]) -> TokenState:
        # The selection names the same tokens, where they stand now: the same tokens come out.
        return answer

    def through(self, case: Reduction) -> Callable[[Tensor], TokenState]:
        """The fuser as a function of the tokens alone."""
        made, attention = self.parts(case)
        state = case.sample.state

        def fused(x: Tensor) -> TokenState:
            return _checked(made(replace(state, x=x), case.selection, state.graph, attention))

        return fused

    def layout(self, case: Reduction) -> None:
        before, after = case.sample.state, self.run(case)
        extra = self.part.extra
        b, _, c = before.x.shape
        expected = (b, before.num_prefix + case.selection.keep.shape[1] + extra, c)
        require(
            tuple(after.x.shape) == expected and after.x.dtype == before.x.dtype,
            f"expected tokens of shape {expected} and {before.x.dtype}, "
            f"got {tuple(after.x.shape)} and {after.x.dtype}",
        )
        require(bool(after.x.isfinite().all()), "some tokens are not finite")
        places = before.index.gather(1, case.selection.keep)
        index = torch.cat((places, places.new_full((b, extra), -1)), dim=1)
        if after.index.shape != index.shape or bool((after.index != index).any()):
            raise AssertionError(
                f"expected index {index.tolist()} (kept tokens in order, −1 for added ones), "
                f"got {after.index.tolist()}"
            )
        if before.size is not None:
            shape = None if after.size is None else tuple(after.size.shape)
            require(shape == expected[:2], f"expected sizes of shape {expected[:2]}, got {shape}")
        for name in ("num_prefix", "grid", "cls_index", "layer"):
            require(getattr(after, name) == getattr(before, name), f"{name} changed")

    def prefix(self, case: Reduction) -> None:
        before, after = case.sample.state, self.run(case)
        require_same(before.prefix, after.prefix, "prefix tokens before and after")
        if before.size is not None and after.size is not None:
            p = before.num_prefix
            require_close(after.size[:, :p], before.size[:, :p], "prefix sizes before and after")

    def linear(self, case: Reduction) -> None:
        x, fused = case.sample.state.x, self.through(case)
        generator = torch.Generator().manual_seed(1)
        other = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        with torch.no_grad():
            together = fused(2.0 * x - 0.5 * other).x
            apart = 2.0 * fused(x).x - 0.5 * fused(other).x
        require_close(together, apart, "f(2x − y/2) and 2 f(x) − f(y)/2", scale=100.0)

    def recorded(self, case: Reduction) -> None:
        state, fused = case.sample.state, self.through(case)
        made, attention = self.parts(case)
        with torch.no_grad():
            matrix = fuser_matrix(made, state, case.selection, attention).to(state.x.dtype)
            after = fused(state.x).image
        require_close(matrix @ state.image, after, "recorded weights × tokens, and the result")
        if made.network is None:  # which may take tokens of its own width only
            n, p = state.num_tokens, state.num_prefix
            units = torch.eye(n, dtype=state.x.dtype)
            probe = torch.cat((units.new_zeros(p, n), units)).expand(state.x.shape[0], -1, -1)
            with torch.no_grad():
                seen = fused(probe).image
            require_close(matrix, seen, "recorded weights, and what becomes of unit vectors")

    def gradient(self, case: Reduction) -> None:
        state = case.sample.state
        x = state.x.clone().requires_grad_()
        after = self.through(case)(x)
        require(after.x.requires_grad, "the result is cut off from the tokens")
        (grad,) = torch.autograd.grad(after.x.square().sum(), x)
        require(bool(grad.isfinite().all()), "some gradients are not finite")
        p = state.num_prefix
        kept = grad[:, p:].gather(1, case.selection.keep[..., None].expand(-1, -1, grad.shape[2]))
        reached = torch.cat((grad[:, :p], kept), dim=1).abs().amax(dim=-1) > 0
        require(bool(reached.all()), "no gradient reaches some prefix or kept tokens")

    def sizes(self, case: Reduction) -> None:
        before, after = case.sample.state.size, self.run(case).size
        if before is None:
            return
        if after is None:
            raise AssertionError("the sizes are gone")
        total, expected = (size.double().sum(dim=1).to(before.dtype) for size in (after, before))
        require_close(total, expected, "sums of the sizes after and before")


def _checked(after: object) -> TokenState:
    if not isinstance(after, TokenState):
        raise AssertionError(f"expected a TokenState, got {after!r}")
    return after
