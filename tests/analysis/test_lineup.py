"""Strategies side by side, at one budget or at the same counts."""

import pytest
from torch import nn

import tokenred as tr
from tokenred.analysis.lineup import lineup, lineup_at_counts, named_specs
from tokenred.core.errors import BackboneError, ConfigError, ScheduleError, UnknownNameError


def test_dense_comes_first(digits: nn.Module) -> None:
    found, _ = lineup(tr.wrap(digits, "gtp"), ["dense", "topk", tr.strategy("gtp", P=2)])
    assert [each.label for each in found] == ["dense", "topk", "MixedAttn+Propagate"]
    assert [each.method for each in found] == ["dense", "topk", "MixedAttn+Propagate"]
    assert found[0].tokens == (64,) * 8
    assert found[2].tokens == (62, 60, 58, 56, 54, 52, 50, 48)
    assert all(each.model.base is digits for each in found)


def test_names_of_a_mapping() -> None:
    given = {"wide": "gtp:P=2", "mine": tr.Strategy("DiagAttn"), "half": "gtp:P=2@0.5"}
    found = [(spec.label, spec.method, spec.share) for spec in named_specs(given)]
    assert found == [("wide", "gtp", None), ("mine", "mine", None), ("half", "gtp", 0.5)]


def test_one_budget_for_all(digits: nn.Module) -> None:
    found, notes = lineup(digits, {"a": "gtp", "b": "tome", "c": "evit"}, gmacs_share=0.75)
    assert notes == ()
    assert [each.label for each in found] == ["dense", "a", "b", "c"]
    assert found[1].method == "gtp"
    shares = [tr.gmacs(each.model) / tr.gmacs(digits) for each in found[1:]]
    # The next token more would cost too much.
    assert all(0.73 < share <= 0.75 for share in shares)


def test_own_budgets_stay(digits: nn.Module) -> None:
    (_, found), _ = lineup(digits, ["gtp@0.6"])
    assert tr.gmacs(found.model) <= 0.6 * tr.gmacs(digits)


def test_a_budget_that_cannot_be_met_leaves_the_others(digits: nn.Module) -> None:
    found, (first, second) = lineup(digits, ["topk@0.1", "gtp@0.6", "algm@0.6"])
    assert [each.label for each in found] == ["dense", "gtp@0.6"]
    assert first.startswith("Left out: topk@0.1: the budget is")
    assert second.startswith("Left out: algm@0.6: ")
    with pytest.raises(ScheduleError, match=r"topk@0.1: the budget is .* one token is left"):
        lineup(digits, ["topk@0.1", "evit@0.1"])
    with pytest.raises(ScheduleError, match="gtp:P=9"):
        lineup(digits, ["gtp:P=9", "gtp@0.6"])


@pytest.mark.parametrize("removed", [None, 3, [0, 5, 0, 2]])
def test_the_same_counts(digits: nn.Module, removed: int | list[int] | None) -> None:
    found = lineup_at_counts(digits, ["gtp:P=1", "topk", "tome", "evit"], removed)
    counts = {None: [4] * 8, 3: [3] * 8}.get(removed if isinstance(removed, int) else None)
    counts = [*removed, 0, 0, 0, 0] if isinstance(removed, list) else counts
    tokens = tuple(64 - sum(counts[: layer + 1]) for layer in range(8))
    assert [each.tokens for each in found] == [tokens] * 4
    dropped = [layer.removed for layer in found[3].model.cost().layers]
    # The fused token takes the place of one more.
    assert dropped == [count + 1 if count else 0 for count in counts]


def test_refused(digits: nn.Module) -> None:
    with pytest.raises(ConfigError, match="put it into"):
        named_specs("gtp")
    with pytest.raises(ConfigError, match="a distinct name for each strategy"):
        named_specs(["gtp", "gtp"])
    with pytest.raises(ConfigError, match="a distinct name for each strategy"):
        named_specs({"dense": "gtp"})
    with pytest.raises(BackboneError, match=r"^expected an nn.Module, got 'digits'"):
        lineup("digits", ["gtp"])  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="nothing"):
        named_specs(["nothing"])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        lineup(digits, ["gtp"], gmacs_share=75)
    with pytest.raises(ConfigError, match="its own budget"):
        lineup(digits, ["gtp@0.6"], gmacs_share=0.75)
    with pytest.raises(ScheduleError, match="gtp:P=9: "):
        lineup(digits, ["gtp:P=9"])
    with pytest.raises(ConfigError, match="two strategies"):
        lineup_at_counts(digits, ["gtp"])
    with pytest.raises(ConfigError, match="its own budget"):
        lineup_at_counts(digits, ["gtp", "topk@0.5"])
    with pytest.raises(ConfigError, match="got none"):
        lineup_at_counts(digits, ["gtp", "topk"], 0)
    # Merging cannot take more than half at once.
    with pytest.raises(ConfigError, match="'tome'; remove fewer"):
        lineup_at_counts(digits, ["gtp", "tome"], [40])
