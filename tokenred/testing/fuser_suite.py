"""The promises of a fuser."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.errors import shown
from tokenred.core.state import Selection, TokenState
from tokenred.reduced.recorder import Taken
from tokenred.strategies.base import Fuser, fusers, required_by
from tokenred.testing import draw
from tokenred.testing.sample import Sample
from tokenred.testing.suite import Suite, require, require_close, require_same


def check_fuser(
    fuser: Fuser | str, *, partners: bool | None = None, max_examples: int = 25
) -> None:
    """Check that a fuser keeps its contract and the traits that it declares.

    For every P from 0 to n−1 there are ``n − P + extra`` image tokens, with the kept ones in order
    and at their positions. Prefix tokens are unchanged, and inputs are not modified. Results are
    deterministic, and the same for an image alone and in a batch. With `conserves_size` the sum of
    sizes stays the same. If `Fuser.linear`, the result is linear in the tokens, with the weights
    that a trace records, and gradients reach every kept token.

    Args:
        fuser: an instance, or a registered name.
        partners: whether the selections have partners; None for both.
        max_examples: as for `check_scorer`.

    Raises:
        AssertionError: with the broken promise and the smallest example found.
    """
    suite = _FuserSuite(fusers.create(fuser), max_examples)
    part = suite.part
    cls, size = part.traits.needs_cls, part.uses_size
    anything = draw.reductions(draw.samples(needs_cls=cls, needs_size=size), partners=partners)
    # A single image, or no graph for a fuser that reads one, would prove nothing.
    precise = draw.samples(
        needs_cls=cls, needs_size=size, needs_graph=part.uses_graph, min_batch=2,
        dtypes=(torch.float64,),
    )  # fmt: skip
    double = draw.reductions(precise, partners=partners)
    fine = draw.smooth_samples(needs_cls=cls, needs_size=size)
    smooth = draw.reductions(fine, partners=partners)
    # Without partners, a fuser may choose them from the features, and is linear only after that.
    decided = draw.reductions(fine, partners=partners is not False)
    suite.holds(suite.finite, anything, suite.layout)
    suite.holds("prefix tokens neither move nor change", anything, suite.prefix)
    suite.keeps_common_promises(anything, batches=double, smooth=smooth)
    if part.linear:
        suite.holds("linear in the tokens", decided, suite.linear)
        promise = "the weights that a trace records are those that are applied"
        suite.holds(promise, decided, suite.recorded)
        suite.holds("gradients reach every kept token", smooth, suite.gradient)
    if part.traits.conserves_size:
        suite.holds("conserves_size: the sizes add up to the same", anything, suite.sizes)
    suite.tell()


class _FuserSuite(Suite[Fuser, TokenState]):
    kind = "fuser"
    answer = "tokens"
    finite = "n − P + extra finite image tokens, with their positions and sizes"

    def given(self, case: Sample) -> tuple[Fuser, Selection, AttentionStats]:
        """The fuser built for an example, and what it is called with."""
        made = self.built(case)
        return made, _of(case), case.attention(required_by(made))

    def call(self, case: Sample) -> tuple[Callable[[], TokenState], Mapping[str, object]]:
        made, selection, attention = self.given(case)
        state = case.state
        inputs = {"state": state, "selection": selection, "attention": attention}
        return lambda: _checked(made(state, selection, state.graph, attention)), inputs

    def numbers(self, answer: TokenState) -> Mapping[str, Tensor]:
        return {"some tokens": answer.x}

    def agree(self, one: TokenState, other: TokenState, what: str, case: Sample) -> None:
        require_close(one.x, other.x, what)
        if one.size is not None and other.size is not None:
            require_close(one.size, other.size, f"{what}: sizes")

    def moved(self, answer: TokenState, order: Int[Tensor, "b n"]) -> TokenState:
        # The selection names the same tokens at their new places, so the same tokens come out.
        return answer

    def through(self, case: Sample) -> Callable[[Float[Tensor, "b N c"]], TokenState]:
        """The fuser as a function of the tokens alone."""
        made, selection, attention = self.given(case)
        state = case.state

        def through(x: Float[Tensor, "b N c"]) -> TokenState:
            after = made(replace(state, x=x), selection, state.graph, attention)
            return self.sound(_checked(after))

        return through

    def layout(self, case: Sample) -> None:
        before, keep, after = case.state, _of(case).keep, self.run(case)
        b, _, c = before.x.shape
        extra = self.part.extra_in(before.layer, before.depth)
        expected = (b, before.num_prefix + keep.shape[1] + extra, c)
        require(
            tuple(after.x.shape) == expected and after.x.dtype == before.x.dtype,
            f"expected tokens of shape {expected} and {before.x.dtype}, "
            f"got {tuple(after.x.shape)} and {after.x.dtype}",
        )
        places = before.index.gather(1, keep)
        if self.part.replaces:
            places = torch.full_like(places, -1)
        index = torch.cat((places, places.new_full((b, extra), -1)), dim=1)
        require(
            after.index.shape == index.shape and bool((after.index == index).all()),
            f"expected index {index.tolist()} (kept tokens in order, −1 for added ones), "
            f"got {after.index.tolist()}",
        )
        if before.size is not None:
            shape = None if after.size is None else tuple(after.size.shape)
            require(shape == expected[:2], f"expected sizes of shape {expected[:2]}, got {shape}")
        for name in ("num_prefix", "grid", "cls_index", "layer"):
            require(getattr(after, name) == getattr(before, name), f"{name} changed")

    def prefix(self, case: Sample) -> None:
        before, after = case.state, self.run(case)
        require_same(before.prefix, after.prefix, "prefix tokens before and after")
        if before.size is not None and after.size is not None:
            p = before.num_prefix
            require_close(after.size[:, :p], before.size[:, :p], "prefix sizes before and after")

    @torch.no_grad()
    def linear(self, case: Sample) -> None:
        x, fused = case.state.x, self.through(case)
        generator = torch.Generator().manual_seed(1)
        other = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        together = fused(2.0 * x - 0.5 * other).x
        apart = 2.0 * fused(x).x - 0.5 * fused(other).x
        require_close(together, apart, "f(2x − y/2) and 2 f(x) − f(y)/2", scale=100.0)

    @torch.no_grad()
    def recorded(self, case: Sample) -> None:
        state, fused = case.state, self.through(case)
        made, selection, attention = self.given(case)
        matrix = Taken(state, selection, attention, made).matrix().to(state.x.dtype)
        after = fused(state.x).image
        require_close(matrix @ state.image, after, "recorded weights × tokens, and the result")
        if made.network is None:  # a network may take only tokens of its own width
            n, p = state.num_tokens, state.num_prefix
            units = torch.eye(n, dtype=state.x.dtype)
            probe = torch.cat((units.new_zeros(p, n), units)).expand(state.x.shape[0], -1, -1)
            seen = fused(probe).image
            require_close(matrix, seen, "recorded weights, and the result on unit vectors")

    def gradient(self, case: Sample) -> None:
        p, keep = case.state.num_prefix, _of(case).keep
        x = case.state.x.clone().requires_grad_()
        after = self.through(case)(x)
        require(after.x.requires_grad, "the result has no gradient")
        (grad,) = torch.autograd.grad(after.x.square().sum(), x)
        require(grad.isfinite(), "some gradients are not finite")
        reached = grad.abs().amax(dim=-1) > 0
        kept = torch.cat((reached[:, :p], reached[:, p:].gather(1, keep)), dim=1)
        require(kept, "no gradient reaches some prefix or kept tokens")

    def sizes(self, case: Sample) -> None:
        before, after = case.state.size, self.run(case).size
        if before is None:
            return
        if after is None:
            raise AssertionError("the result has no sizes")
        total, expected = (size.double().sum(dim=1).to(before.dtype) for size in (after, before))
        require_close(total, expected, "sums of the sizes after and before")


def _of(case: Sample) -> Selection:
    assert case.selection is not None
    return case.selection


def _checked(after: object) -> TokenState:
    if not isinstance(after, TokenState):
        raise AssertionError(f"expected a TokenState, got {shown(after)}")
    return after
