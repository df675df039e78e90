"""Strategies as text."""

from pathlib import Path

import pytest
from torch import nn

import tokenred as tr
from tokenred.analysis import at_budget, parse_spec, same_budget
from tokenred.core.errors import (
    ConfigError,
    PartError,
    ScheduleError,
    TokenredError,
    UnknownNameError,
)
from tokenred.models import load_model
from tokenred.strategies.specs import write_spec


@pytest.fixture(scope="module")
def digits() -> nn.Module:
    return load_model("digits")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gtp", tr.strategy("gtp")),
        ("GTP:P=4,alpha=0.2", tr.strategy("gtp", P=4, alpha=0.2)),
        ("gtp: P = 4 , scorer = DiagAttn", tr.strategy("gtp", P=4, scorer="DiagAttn")),
        ("gtp:proportional_attention=false", tr.strategy("gtp", proportional_attention=False)),
        ("evit:keep_rate=(0.9, 0.8),layers=(2, 5)",
         tr.strategy("evit", keep_rate=(0.9, 0.8), layers=(2, 5))),
        ("tome:r=(13, -1.0)", tr.strategy("tome", r=(13, -1.0))),
        ("tome:r=[3, 2, 1]", tr.strategy("tome", r=[3, 2, 1])),
        ("topk:scorer=Random(seed=3)", tr.strategy("topk", scorer=tr.scorers.Random(3))),
        ("topk:scorer=none", tr.strategy("topk")),
        ("diffrate:preset=deit_b_11.5", tr.strategy("diffrate", preset="deit_b_11.5")),
        ("gtp:schedule=KeepRatio(ratio=0.5)",
         tr.strategy("gtp", schedule=tr.KeepRatio(0.5))),
    ],
)  # fmt: skip
def test_text(text: str, expected: tr.Strategy) -> None:
    spec = parse_spec(text)
    assert spec.strategy == expected
    assert spec.label == text
    assert spec.method == text.partition(":")[0].lower()
    assert spec.share is None


def test_toml_and_objects(tmp_path: Path) -> None:
    mine = tr.strategy("gtp", P=3, theta=0.7)
    file = tmp_path / "a@b.toml"
    mine.to_toml(file)
    spec = parse_spec(str(file))
    assert (spec.strategy, spec.label, spec.share) == (mine, "a@b", None)
    assert parse_spec(file) == spec
    assert parse_spec(f"{file}@0.5").share == 0.5
    assert parse_spec(mine).strategy is mine
    assert parse_spec(spec) is spec


@pytest.mark.parametrize(
    "text",
    ["", ":P=3", "gtp:3", "gtp:P=", "gtp:P=3)(", "gtp:P=open('x')", "gtp:P=1+x", "gtp:**a",
     "gtp@", "gtp@1.5", "gtp@0", "gtp@x", "gtp:P=3,P=4", "none.toml", "evit:keep_rate=none"],
)  # fmt: skip
def test_text_that_is_none(text: str) -> None:
    with pytest.raises(TokenredError):
        parse_spec(text)
    with pytest.raises(ConfigError, match=r"KeepRatio\(0\.7\); write it .*KeepRatio\(ratio=0\.7\)"):
        parse_spec("topk:schedule=KeepRatio(0.7)")


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("gtp:P=4", "'gtp', P=4"),
        ("gtp@0.65", "'gtp'"),
        ("gtp:P=4,alpha=1@0.5", "'gtp', P=4,alpha=1"),
    ],
)
def test_one_line_is_not_a_name(line: str, call: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        tr.strategy(line)
    assert f"tokenred.wrap(model, {line!r})" in str(caught.value)
    assert str(caught.value).endswith(f"tokenred.strategy({call}).")


def test_what_is_written_is_short_and_reads_the_same() -> None:
    given = {"scorer": tr.scorers.Random(3), "fuser": tr.strategy("tome").fuser, "theta": 1.0}
    assert write_spec("topk", given) == "topk:scorer=Random(seed=3),fuser=merge,theta=1"
    assert parse_spec("topk:theta=1").strategy == tr.strategy("topk", theta=1.0)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'gtp'"):
        parse_spec("gtq")
    with pytest.raises(UnknownNameError, match="strategy 'gtp' has no argument 'Q'"):
        parse_spec("gtp:Q=4")
    with pytest.raises(UnknownNameError, match="scorer 'DiagAttm'"):
        parse_spec("gtp:scorer=DiagAttm")
    with pytest.raises(PartError, match="expected a Strategy"):
        parse_spec(3)  # type: ignore[arg-type]
    for part in (tr.scorers.CosSim, tr.scorers.CosSim()):
        with pytest.raises(PartError, match="A part goes into a strategy"):
            parse_spec(part)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.85, 0.65])
def test_budgets_are_met(digits: nn.Module, share: float) -> None:
    dense = tr.gmacs(digits)
    for spec in same_budget([share]):
        cost = tr.gmacs(tr.wrap(digits, spec.resolve(dense)))
        assert 0.94 * share * dense < cost <= share * dense, spec.label
        assert spec.label == f"{spec.method}@{share}"


def test_a_budget_goes_where_the_method_takes_tokens() -> None:
    evit = at_budget(tr.strategy("evit", layers=(2, 4)), 0.5).schedule
    assert evit == tr.Budget(0.5, tr.KeepRatio(layers=(2, 4)))
    assert at_budget(tr.strategy("gtp"), 0.5).schedule == tr.Budget(0.5)
    again = at_budget(tr.strategy("evit").replace(schedule=evit), 0.4).schedule
    assert again == tr.Budget(0.4, tr.KeepRatio(layers=(2, 4)))
    rising = at_budget(tr.strategy("tome", r=(8, 1.0)), 0.5).schedule
    assert rising == tr.Budget(0.5, tr.Linear(8, 1.0))


def test_a_budget_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="its own budget"):
        same_budget([0.5], ["gtp@0.7"])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        same_budget(85)


@pytest.mark.parametrize("form", ["name", "spec", "share", "toml", "Strategy", "Spec"])
def test_wherever_a_strategy_is_taken(digits: nn.Module, tmp_path: Path, form: str) -> None:
    forms = {
        "name": "gtp", "spec": "gtp:P=3", "share": "gtp@0.6", "toml": tmp_path / "mine.toml",
        "Strategy": tr.strategy("gtp", P=3), "Spec": parse_spec("gtp:P=3"),
    }  # fmt: skip
    tr.strategy("gtp", P=3).to_toml(tmp_path / "mine.toml")
    given = forms[form]
    expected = parse_spec(given).resolve(tr.gmacs(digits))
    fast = tr.wrap(digits, given)
    assert fast.strategy == expected
    assert tr.wrap(digits, "topk").with_strategy(given).strategy == expected
    # A share is one of the dense model's cost, whatever ran before.
    assert tr.gmacs(fast.with_strategy("tome@0.7")) <= 0.7 * tr.gmacs(digits)
    assert tr.features(digits, given).model.strategy == expected
    if form == "share":
        (timing,) = tr.benchmark(given, dense=digits, batch_size=1, pairs=2, progress=False)
        assert timing.gmacs == tr.gmacs(fast)


def test_a_share_keeps_to_what_a_selector_can_remove(digits: nn.Module) -> None:
    # At most half of the tokens merge in a block, so the lowest keep rate of all is refused.
    share = tr.gmacs(tr.wrap(digits, "pitome@0.7")) / tr.gmacs(digits)
    assert 0.6 < share <= 0.7
    with pytest.raises(ScheduleError, match="until one token is left"):
        tr.wrap(digits, "pitome@0.02")
