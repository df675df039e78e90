"""Strategies of several steps as values."""

import pytest

import tokenred as tr
from tokenred.analysis.study.cell import read_base
from tokenred.core.errors import ConfigError, PartError, UnknownNameError

TWO = tr.Strategy(
    steps=(
        tr.Step("MixedAttn", fuser="propagate", schedule=3, layers=(1, 3)),
        tr.Step("BipartiteMatching", fuser="merge", schedule=tr.KeepRatio(0.9), where="after_mlp"),
    ),
    graph="mixed",
    proportional_attention=True,
)


@pytest.mark.parametrize("name", tr.list_strategies())
def test_a_strategy_is_its_single_step(name: str) -> None:
    flat = tr.strategy(name)
    (step,) = flat.steps
    assert (step.scorer, step.fuser, step.schedule) == (flat.scorer, flat.fuser, flat.schedule)
    rest = {k: v for k, v in flat.arguments().items() if not hasattr(step, k)}
    again = tr.Strategy(steps=flat.steps, **rest)
    assert again == flat
    assert (hash(again), again.fingerprint()) == (hash(flat), flat.fingerprint())
    assert again.to_toml() == flat.to_toml()


def test_several_steps_as_text() -> None:
    assert tr.Strategy.from_toml(TWO.to_toml()) == TWO
    assert "layers=(1, 3)" in repr(TWO)
    assert TWO.fingerprint() != TWO.replace(steps=TWO.steps[::-1]).fingerprint()
    assert "steps.1.fuser" in TWO.parts


def test_a_step_in_some_blocks_is_written_whole() -> None:
    some = tr.Strategy(steps=(tr.Step("Random", schedule=2, layers=(1,)),))
    assert tr.Strategy.from_toml(some.to_toml()) == some
    assert some.replace(fuser="merge").steps[0].layers == (1,)


def test_what_is_of_one_step_is_refused_for_several() -> None:
    with pytest.raises(ConfigError, match=r"fuser= is of one step, and the strategy has 2"):
        TWO.replace(fuser="prune")
    with pytest.raises(UnknownNameError, match="Step has no parameter 'graph'"):
        TWO.steps[0].replace(graph="none")
    with pytest.raises(ConfigError, match="got both"):
        tr.Strategy("Random", steps=TWO.steps)
    with pytest.raises(ConfigError, match="got both"):
        tr.Strategy(schedule=8, steps=TWO.steps)
    with pytest.raises(ConfigError, match="got neither"):
        tr.Strategy(graph="mixed")
    with pytest.raises(PartError, match="expected steps="):
        tr.Strategy(steps=("MixedAttn",))


def test_an_axis_sets_every_step() -> None:
    made = read_base(TWO).build({"P": 4, "alpha": 0.3, "fuser.epsilon": 0.1})
    first, second = made.steps
    assert (first.schedule, first.fuser) == (tr.Constant(4), tr.fusers.Propagate(alpha=0.3))
    assert second.fuser == tr.fusers.Merge(epsilon=0.1)
    assert read_base(TWO).build({"M": 5}).graph == tr.graphs.Mixed(M=5)
