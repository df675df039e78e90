"""Counts per block: the published ones, the caps, and what is refused."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenred.core.errors import ConfigError, ScheduleError
from tokenred.strategies import Budget, Constant, KeepRatio, Linear, PerLayer
from tokenred.strategies.schedule import Schedule, ScheduleContext, quarters
from tokenred.strategies.schedules.grid_shrink import GridShrink

QUICK = settings(max_examples=100, deadline=None, derandomize=True)


def left(counts: Sequence[int], patches: int = 196, extra: int = 0) -> list[int]:
    """Image tokens after each block in which some go."""
    found, tokens = [], patches
    for count in counts:
        if count:
            tokens -= count - extra
            found.append(tokens)
    return found


def half(depth: int = 12, patches: int = 196, caps: bool = True) -> ScheduleContext:
    return ScheduleContext(depth, patches, limit=lambda tokens: tokens // 2, caps=caps)


def test_per_layer_goes_on_with_0() -> None:
    assert PerLayer((5, 0, 3))(6, 196) == (5, 0, 3, 0, 0, 0)
    assert PerLayer([1, 2]) == PerLayer((1, 2))
    with pytest.raises(ScheduleError, match="has 3 counts, but the model has 2"):
        PerLayer((1, 2, 3))(2, 196)


def test_linear_is_the_published_schedule() -> None:
    assert Linear(13, -1)(12, 196) == (26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0)
    assert Linear(13, 0)(12, 196) == (13,) * 12
    assert Linear(13, 1)(12, 196) == (0, 2, 4, 7, 9, 11, 14, 16, 18, 21, 23, 26)
    assert Linear(4, -1)(1, 196) == (8,)


@pytest.mark.parametrize(
    ("extra", "expected"), [(0, [138, 97, 68]), (1, [139, 99, 71])], ids=["pruned", "fused"]
)
def test_keep_ratio_is_evits(extra: int, expected: list[int]) -> None:
    counts = KeepRatio(0.7).resolve(ScheduleContext(12, 196, added=lambda layer: extra))
    assert [layer for layer, count in enumerate(counts) if count] == [3, 6, 9]
    assert left(counts, extra=extra) == expected


def test_keep_ratio_of_the_start_is_dynamicvits() -> None:
    counts = KeepRatio(0.7, rounding="floor", of="start")(12, 196)
    assert left(counts) == [137, 96, 67]
    assert left(KeepRatio(0.7, of="start")(12, 196)) == [138, 97, 68]


def test_keep_ratio_takes_one_share_a_block() -> None:
    counts = KeepRatio((0.9, 0.5), layers=(1, 2))(4, 100)
    assert counts == (0, 10, 45, 0)
    with pytest.raises(ConfigError, match="2 ratio for 3 layers"):
        KeepRatio((0.9, 0.5), layers=(1, 2, 3))
    with pytest.raises(ScheduleError, match="2 ratios for the 3 blocks"):
        KeepRatio((0.9, 0.5))(12, 196)


@QUICK
@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_share_is_taken_as_it_is_written(thousandths: int, tokens: int) -> None:
    """0.07 of 100 tokens are 7, though 0.07 · 100 is 7.000…1."""
    counts = KeepRatio(thousandths / 1000, layers=(0,))(1, tokens)
    assert tokens - counts[0] == max(1, -(-thousandths * tokens // 1000))
    floor = KeepRatio(thousandths / 1000, layers=(0,), rounding="floor")(1, tokens)
    assert tokens - floor[0] == max(1, thousandths * tokens // 1000)


def test_rounding_of_a_power_loses_no_token() -> None:
    """0.7² · 100 is 48.999…9 to the machine."""
    schedule = KeepRatio(0.7, layers=(0, 1), rounding="floor", of="start")
    assert left(schedule(2, 100), patches=100) == [70, 49]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (12, (3, 6, 9)),
        (16, (4, 8, 12)),
        (20, (5, 10, 15)),
        (24, (6, 12, 18)),
        (2, (0, 1)),
        (1, (0,)),
    ],
)
def test_quarters_scale_with_the_depth(depth: int, expected: tuple[int, ...]) -> None:
    assert quarters(depth) == expected
    assert all(0 <= layer < depth for layer in quarters(depth))


def test_a_cap_is_a_cap() -> None:
    counts = Constant(50).resolve(half())
    tokens = 196
    for count in counts:
        assert count == min(50, tokens // 2)
        tokens -= count
    assert counts[:4] == (50, 50, 48, 24)
    assert counts[-1] == 0
    assert tokens == 1


def test_without_a_cap_too_much_is_refused_with_block_asked_and_available() -> None:
    with pytest.raises(
        ScheduleError, match=r"block 2 to remove 50 tokens; 96 image tokens enter it"
    ):
        Constant(50).resolve(half(caps=False))
    with pytest.raises(
        ScheduleError, match=r"block 0 .* 196 .* 4 image .* between 0 and 3 can be removed"
    ):
        Constant(196)(12, 4)
    with pytest.raises(ScheduleError, match=r"block 1 to remove 1 tokens; 1 image"):
        PerLayer((3, 1))(2, 4)


def test_a_block_that_is_not_there_is_refused() -> None:
    for schedule in (KeepRatio(layers=(3, 12)), Budget(1.0, KeepRatio(layers=(12,)))):
        with pytest.raises(ScheduleError, match=r"got blocks \[12\], but .* 0 to 11"):
            schedule.resolve(costed())


class Waves(Schedule):
    """A schedule of one's own."""

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        return tokens // 10 if layer % 2 else 0


def costed(depth: int = 12, patches: int = 196, price: float = 1e-3) -> ScheduleContext:
    """A model in which a token costs the same in every block that it passes."""

    def gmacs(counts: Sequence[int]) -> float:
        total, tokens = 0.0, patches
        for count in counts:
            tokens -= count
            total += tokens * price
        return total

    return ScheduleContext(depth, patches, gmacs=gmacs)


def notch(step: int, shape: str, context: ScheduleContext) -> tuple[int, ...]:
    """The counts by which a budget is approached: from nothing removed to all but one token."""
    if shape == "ratio":
        return KeepRatio((context.patches - step) / context.patches).resolve(context)
    each, rest = divmod(step, context.depth)
    return tuple(each + (layer < rest) for layer in range(context.depth))


@QUICK
@given(st.floats(0.02, 1.0), st.sampled_from(("constant", "ratio")), st.integers(1, 16))
def test_a_budget_is_met_as_closely_as_it_goes(share: float, shape: str, depth: int) -> None:
    context = costed(depth, patches=50)
    gmacs = context.gmacs((0,) * depth) * share
    budget = Budget(gmacs, KeepRatio() if shape == "ratio" else Constant(8))
    fitting = [
        counts
        for counts in (notch(step, shape, context) for step in range(context.patches))
        if context.gmacs(counts) <= gmacs
    ]
    if fitting:
        assert budget.resolve(context) == fitting[0]
    else:
        with pytest.raises(ScheduleError, match=r"costs .* until one token is left"):
            budget.resolve(context)


@pytest.mark.parametrize("share", [0.9, 0.7])
def test_a_budget_keeps_the_shape_of_a_schedule(share: float) -> None:
    context = costed()
    assert context.gmacs is not None
    gmacs = share * context.gmacs([0] * 12)

    def scaled(schedule: Schedule) -> list[int]:
        counts = Budget(gmacs, schedule).resolve(context)
        assert 0.97 * gmacs < context.gmacs(counts) <= gmacs
        return list(counts)

    rising = scaled(Linear(8, inflection=1.0))
    assert rising == sorted(rising)
    assert rising[0] == 0
    assert rising[-1] >= 2 * rising[5] > 0
    ones, threes = (scaled(PerLayer((0, 0, 1, 0, 0, 3)))[layer] for layer in (2, 5))
    assert threes == pytest.approx(3 * ones, abs=2)
    exact = Budget(gmacs, KeepRatio((0.9, 0.5), (2, 5), "floor")).resolve(context)
    assert 0 < exact[2] < exact[5]
    assert scaled(Waves()) != scaled(Constant(3))
    assert {layer for layer, count in enumerate(scaled(Waves())) if count} == set(range(1, 12, 2))


def test_what_a_budget_finds_makes_no_other_schedule() -> None:
    assert Budget(1.0, Constant(8)) == Budget(1.0, Constant(4)) == Budget(1.0)
    assert Budget(1.0, KeepRatio(0.5)) == Budget(1.0, KeepRatio(0.8)) != Budget(1.0)
    assert Budget(1.0, Budget(2.0, Linear(4, 1.0))) == Budget(1.0, Linear(4, 1.0))
    for stuck in (PerLayer((0, 0)), GridShrink()):
        with pytest.raises(ScheduleError, match=r"(removes nothing|cannot follow a budget).*\. "):
            Budget(1.0, stuck).resolve(costed())


class OneEach(Schedule):
    """Removes a token in each block, whatever its share."""

    def resolve(self, context: ScheduleContext) -> tuple[int, ...]:
        return (1,) * context.depth

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        return (1,) * context.depth


class Late(Constant):
    """The same P, in the second half."""

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        return self.P * (2 * layer >= context.depth)

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        return Schedule.scaled(self, share, context)


def test_a_budget_scales_a_schedule_made_of_a_constant_one_as_that_says() -> None:
    context = costed()
    assert context.gmacs is not None
    found = Budget(0.8 * context.gmacs([0] * 12), Late(8)).resolve(context)
    assert found[:6] == (0,) * 6
    assert all(found[6:])


def test_what_a_budget_cannot_reach_is_a_share_of_the_dense_cost() -> None:
    context = costed()
    assert context.gmacs is not None
    dense = context.gmacs([0] * 12)
    assert Budget(dense, OneEach()).resolve(context) == (0,) * 12
    with pytest.raises(ScheduleError, match=r"\(0\.500 of the whole\).* at least .* \(0\.967\)"):
        Budget(dense / 2, OneEach()).resolve(context)


def test_a_budget_needs_a_model() -> None:
    with pytest.raises(ScheduleError, match="needs a model to compute costs; wrap one"):
        Budget(1.0)(12, 196)
