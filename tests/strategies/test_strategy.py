import math
import warnings
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tests.strategies.recipes.checks import SMALL
from tokenred.analysis import at_budget
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.registry import KINDS, Entry
from tokenred.strategies.schedule import ScheduleContext


def test_recipe_equals_its_composition() -> None:
    composed = tr.Strategy(
        scorer=tr.scorers.MixedAttn(aggregate="max"),
        graph=tr.graphs.Mixed(M=8),
        fuser=tr.fusers.Propagate(alpha=0.1),
        schedule=tr.Constant(8),
        theta=1.0,
        proportional_attention=True,
    )
    recipe = tr.strategy("gtp", P=8)
    assert recipe == composed
    assert hash(recipe) == hash(composed)
    assert recipe.fingerprint() == composed.fingerprint()
    assert tr.strategy("GTP") == recipe
    assert recipe != tr.strategy("gtp", P=7)


class _Scorer(tr.Scorer):
    aggregate: str = "mean"


class _Fuser(tr.fusers.Propagate):
    alpha: float = 0.3


class _Graph(tr.graphs.Semantic):
    M: int = 4


def test_a_recipe_leaves_own_parts_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, part in {"scorer": _Scorer, "fuser": _Fuser, "graph": _Graph}.items():
        monkeypatch.setitem(KINDS[kind]._entries, "own", Entry("own", part))
    own = tr.strategy("gtp", scorer="own", fuser="own", graph="own")
    assert (own.scorer, own.fuser, own.graph) == (_Scorer(), _Fuser(), _Graph())
    given = tr.strategy(
        "gtp", scorer="own", fuser="own", graph="own", aggregate="max", alpha=0.1, M=8
    )
    assert given.scorer == _Scorer("max")
    assert given.fuser == _Fuser(0.1)
    assert given.graph == _Graph(8)


def test_names_or_instances_everywhere() -> None:
    by_name = tr.Strategy("mixedattn", graph="mixed", fuser="propagate", schedule=8)
    by_part = tr.Strategy(
        tr.scorers.MixedAttn(),
        graph=tr.graphs.Mixed(),
        fuser=tr.fusers.Propagate(),
        schedule=tr.Constant(8),
    )
    assert by_name == by_part
    assert tr.Strategy(tr.selectors.TopScore("MixedAttn")) == tr.Strategy("MixedAttn")


@pytest.mark.parametrize("name", tr.list_strategies())
@pytest.mark.parametrize(("depth", "patches"), [(1, 4), (2, 9), (8, 64), (12, 196), (40, 49)])
def test_every_recipe_fits_every_model_by_default(name: str, depth: int, patches: int) -> None:
    made = tr.strategy(name)
    context = ScheduleContext(
        depth,
        patches,
        added=lambda layer: made.fuser.extra_in(layer, depth),
        limit=made.selector.limit,
        caps=made.selector.caps,
        grid=(math.isqrt(patches),) * 2,
    )
    counts = made.schedule.resolve(context)
    assert len(counts) == depth
    assert sum(counts) < patches + depth


def test_the_default_of_gtp_is_eight_a_block() -> None:
    bare = tr.strategy("gtp")
    assert bare.schedule(12, 196) == (8,) * 12
    assert bare.schedule(8, 64) == (4,) * 8
    assert bare == tr.strategy("gtp", P=8)
    with pytest.raises(tr.errors.ScheduleError, match="Remove fewer"):
        tr.strategy("gtp", P=8).schedule(8, 64)


def test_reference_changes_what_the_program_changes() -> None:
    made = tr.strategy("gtp", reference=True)
    assert made.scorer == tr.scorers.MixedAttn(exclude_self=False)
    assert made.graph == tr.graphs.Mixed(reference=True)
    assert made.reference


def test_replace_looks_names_up() -> None:
    made = tr.strategy("gtp").replace(scorer="DiagAttn", schedule=3)
    assert made.scorer == tr.scorers.DiagAttn()
    assert made.schedule == tr.Constant(3)
    with pytest.raises(UnknownNameError, match="Did you mean 'scorer'"):
        made.replace(scorr="DiagAttn")
    with pytest.raises(UnknownNameError, match=r"strategy\(name, P=5\), or schedule=5"):
        made.replace(P=5)
    with pytest.raises(UnknownNameError, match=r"strategy\(name, alpha=2\), or fuser=mine\.fuser"):
        made.replace(alpha=2)
    with pytest.raises(
        UnknownNameError, match=r"Write scorer=mine\.scorer\.replace\(exclude_self=0"
    ):
        tr.strategy("gtp").replace(exclude_self=0)


def test_before_a_block_the_attention_of_the_one_before_is_read() -> None:
    model = VisionTransformer(**SMALL)
    late = tr.Strategy("MixedAttn", schedule=tr.PerLayer((0, 3)), where="before_block")
    with pytest.raises(ConfigError, match="there is none before block 0"):
        tr.wrap(model, late.replace(schedule=3))
    images = torch.randn(2, 3, 32, 32)
    _, trace = tr.wrap(model.eval(), late).run_with_trace(images)
    after = tr.wrap(model, late.replace(schedule=tr.PerLayer((3,)), where="after_attention"))
    _, other = after.run_with_trace(images)
    # The scores of block 0 are read by both, and the MLP lies between.
    assert torch.equal(trace.index, other.index)


def test_what_is_printed_has_no_defaults() -> None:
    text = repr(tr.strategy("topk", keep_rate=0.7))
    assert text.startswith("Strategy(scorer=CLSAttn(")
    assert not any(
        word in text for word in ("router", "score_mods", "theta", "embedding", "threshold")
    )
    assert "theta=0.6" in repr(tr.strategy("gtp", theta=0.6))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"graph": "mixed"}, "graph: not read by Prune"),
        ({"schedule": 0}, "schedule: removes no tokens"),
        ({"schedule": 0, "scorer": "Random"}, ""),  # the dense model
        ({"schedule": 0, "scorer": "ThresholdMatching"}, ""),
        ({"schedule": 0, "router": "slow_fast"}, ""),
        ({"fuser": "propagate"}, "fuser: without a graph Propagate moves nothing"),
        ({"graph": "mixed", "fuser": tr.fusers.Propagate(alpha=0)}, "fuser: alpha=0 moves nothing"),
        ({"graph": "mixed", "fuser": "propagate"}, ""),
    ],
)
def test_parts_that_do_nothing_are_said(fields: dict[str, Any], told: str) -> None:
    mine = tr.Strategy(**{"scorer": "CosSim", "schedule": 2, **fields})
    assert mine.unused == ((told,) if told else ())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = tr.wrap(VisionTransformer(**SMALL), mine)
    assert [str(one.message).partition(" (in")[0] for one in caught] == list(mine.unused)
    assert repr(fast).endswith(told)


def test_an_amount_that_a_budget_replaces_is_said() -> None:
    model, told = VisionTransformer(**SMALL), "schedule: the budget replaces P=4"
    plain = tr.wrap(model, "gtp@0.65")
    fast = tr.wrap(model, "gtp:P=4@0.65")
    assert fast.strategy == plain.strategy
    assert (fast.strategy.unused, plain.strategy.unused) == ((told,), ())
    assert repr(fast) == f"{plain!r}\n{told}"
    assert tr.strategy("gtp", P=4).unused == ()
    budget = 0.65 * tr.gmacs(model)
    with pytest.warns(tr.errors.UnusedWarning, match=told):
        tr.wrap(model, at_budget(tr.strategy("gtp", P=4).replace(scorer="CosSim"), budget))
    for shape in ({"r": (8, 1.0)}, {}):  # a slope counts; no amount was given
        assert at_budget(tr.strategy("tome", **shape), budget).unused == ()


@pytest.mark.parametrize(
    ("name", "arguments", "unread"),
    [
        ("gtp", {"P": 5, "schedule": 3}, "P=5"),
        ("topk", {"keep_rate": 0.5, "schedule": 3}, "keep_rate=0.5"),
        ("gtp", {"aggregate": "mean", "scorer": "CosSim"}, "aggregate='mean'"),
        ("gtp", {"alpha": 0.9, "fuser": "prune", "graph": "none"}, "alpha=0.9"),
        ("tofu", {"r": 5, "ratio": 0.9}, "r=5"),
        ("tofu", {"r": 8, "ratio": 0.9}, ""),  # the default
        ("gtp", {"P": 5, "alpha": 0.9, "scorer": "CosSim"}, ""),
    ],
)
def test_an_argument_that_another_one_replaces_is_said(
    name: str, arguments: dict[str, Any], unread: str
) -> None:
    told = (f"{unread}: replaced by the other arguments",) if unread else ()
    made = tr.strategy(name, **arguments)
    assert made.unused == made.replace(theta=0.5).unused == told


def test_a_budget_prints_what_it_does() -> None:
    model = VisionTransformer(**SMALL)
    text = repr(tr.wrap(model, "evit:layers=(1,)@0.75"))
    budget = 0.75 * tr.gmacs(model)
    assert f"schedule=Budget(gmacs={budget:.4g}, schedule=KeepRatio(layers=(1,)))" in text
    assert text.endswith("; budget 75.0%)")
    assert "Constant())" in repr(tr.wrap(model, "gtp:P=4@0.65"))


def test_arguments_that_a_part_does_not_use_are_accepted() -> None:
    made = tr.strategy("gtp", graph="none", M=3, fuser="prune", alpha=0.4, scorer="Random")
    assert (made.graph, made.fuser) == (tr.graphs.NoGraph(), tr.fusers.Prune())


def test_a_selector_may_be_called_so() -> None:
    matching = tr.selectors.BipartiteMatching()
    made = tr.Strategy(selector=matching, fuser="merge")
    assert made == tr.Strategy("BipartiteMatching", fuser="merge")
    assert tr.strategy("topk", selector="BipartiteMatching").selector == matching
    assert made.replace(selector="GridDrop") == tr.Strategy(selector="GridDrop", fuser="merge")
    with pytest.raises(ConfigError, match="a scorer or a selector, got both"):
        tr.Strategy("CosSim", selector=matching)
    with pytest.raises(UnknownNameError, match="'tome' has no P; its number of tokens is r="):
        tr.strategy("tome", P=8)


def test_a_parameter_of_a_part_is_no_argument_but_told() -> None:
    told = r"no argument 'seed'.* Random has it: write scorer=Random\(seed=…\)"
    with pytest.raises(UnknownNameError, match=told):
        tr.strategy("gtp", scorer="Random", seed=3)
