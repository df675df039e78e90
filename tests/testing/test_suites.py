"""Every part of the library keeps its promises, and every planted fault is found and named.

For each kind there is a sound part, and what takes the place of some of it is the fault.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.testing.parts import (
    CLS,
    DIAGONAL,
    Adaptive,
    Batchwise,
    ByPlace,
    Carried,
    Choice,
    Counts,
    Dice,
    Forgetful,
    Neighbours,
    PerBlock,
    Rows,
    Score,
    Spoiled,
    TwoFold,
    Weighted,
    best,
    bright,
    carry,
    length,
    split,
    with_image,
)
from tokenred.core.errors import UnknownNameError
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part, Traits
from tokenred.core.registry import KINDS
from tokenred.core.state import Selection, TokenState
from tokenred.graphs import Graph, Semantic
from tokenred.strategies.transport import Transport
from tokenred.testing import check_fuser, check_graph, check_schedule, check_scorer, check_selector
from tokenred.testing.suite import Suite

CHECKS: dict[str, Callable[..., None]] = {
    "scorer": check_scorer, "selector": check_selector, "graph": check_graph,
    "fuser": check_fuser, "schedule": check_schedule,
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {
    "TopScore": {"scorer": "MixedAttn"},
    "Budget": {"gmacs": 700.0},
    "Constant": {"P": 3},
    "Linear": {"r": 3, "inflection": -1.0},
    "PerLayer": {"counts": (4, 0, 2)},
}
OWN = [(kind, e.name) for kind in CHECKS for e in KINDS[kind] if e.source.startswith("tokenred.")]


@pytest.mark.parametrize(("kind", "name"), [*OWN, ("selector", "CLSAttn")])
def test_every_part_keeps_its_promises(
    kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # A scorer stands for a selector, too.
    part = KINDS[kind].create(name, **NEEDED.get(name, {})) if (kind, name) in OWN else name
    CHECKS[kind](part, max_examples=6)
    (line,) = capsys.readouterr().out.splitlines()
    assert f" keeps the contract of a {kind}, 6 examples for each promise: " in line


SOUND: dict[str, tuple[str, Part]] = {
    "scorer": ("scorer", Score()),
    "declared chance": ("scorer", Dice(lambda s, a: torch.rand(s.index.shape))),
    "declared batch": ("scorer", Batchwise(lambda s, a: length(s) - length(s).mean())),
    "weights": ("scorer", Weighted()),
    "selector": ("selector", Choice()),
    "declared places": ("selector", ByPlace(lambda s, c: split(in_order(s), c))),
    "adaptive": ("selector", Adaptive()),
    "transport": ("fuser", Carried()),
    "call": ("fuser", Spoiled()),
    "graph": ("graph", Neighbours()),
    "schedule": ("schedule", Counts()),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_part_passes(name: str) -> None:
    kind, part = SOUND[name]
    CHECKS[kind](part, max_examples=10)


# ---------------------------------------------------------------- faults


class NeverRefuses(Score):
    traits: ClassVar[Traits] = Traits(needs_cls=True)

    def check(self, info: ModelInfo) -> None: ...


class AlwaysRefuses(Score):
    traits: ClassVar[Traits] = Traits(needs_cls=True)

    def check(self, info: ModelInfo) -> None:
        super().check(ModelInfo("x", 8, 1, 8, 0, None, None, 16, ()))


class BuildsNothing(Score):
    def build(self, info: ModelInfo) -> None:  # type: ignore[override]
        return None


def in_order(state: TokenState) -> Tensor:
    return torch.arange(state.num_tokens).repeat(len(state.x), 1)


def column(state: TokenState, attention: object = None) -> Tensor:
    return (state.index % state.grid[1]).float()


def late_ties(state: TokenState, count: int) -> Selection:
    score = length(state)
    back = score.flip(1).sort(dim=1, descending=True, stable=True).indices
    return split(score.shape[1] - 1 - back, count, score=score)


def spread(graph: Graph) -> Graph:
    root = graph.degree().rsqrt()
    return replace(graph, weights=root[..., None] * graph.values * root[:, None, :])


def doubled(graph: Graph) -> Graph:
    pair = (torch.cat((t, t), dim=-1) for t in (graph.neighbours, graph.values))
    return Graph.from_neighbours(*pair, graph.grid)


def cut(graph: Graph) -> Graph:
    parts = (graph.neighbours, graph.values, graph.weights)
    return Graph(*(part[:, 1:] for part in parts), graph.grid, graph.directed)


def padded(chosen: Selection) -> Selection:
    wide = torch.cat((chosen.keep, chosen.keep[:, :1]), dim=1)
    return replace(chosen, keep=wide, alive=nn.functional.pad(chosen.alive, (0, 1)))


COUNTER = itertools.count()
# What is wrong, the promise that breaks, and what is said to have been found; what all kinds
# promise is tried on scorers.
SCORERS = {
    "transposed": (Score(lambda s, a: length(s)[..., None]), "one finite score",
                   r"expected shape \(1, 1\), .* got \(1, 1, 1\).*example: Sample\(b=1, p=0, n=1"),
    "divides by zero": (Score(lambda s, a: 1 / length(s)), "one finite score", "not finite"),
    "in place": (Score(lambda s, a: length(replace(s, x=s.x.mul_(2)))), "inputs are not modified",
                 "state.x was changed in place"),
    "edits a statistic": (Score(lambda s, a: a[DIAGONAL].add_(1), (DIAGONAL,)),
                          "inputs are not modified", r"attention\.values\[.*changed in place"),
    "chance": (Score(lambda s, a: torch.rand(s.index.shape)),
               "deterministic: the same input, the same scores", "called twice|tried again"),
    "over the batch": (Score(lambda s, a: length(s) - length(s).mean()),
                       "treated alone as in a batch", r"image \d alone and in the batch"),
    "by place": (Score(lambda s, a: in_order(s).float()), "equivariant: permuting the tokens",
                 "the scores for permuted tokens"),
    "undeclared": (Score(lambda s, a: a[DIAGONAL]), "one finite score", "PartError: .*Declare it"),
    "secret CLS": (Score(lambda s, a: a[CLS], (CLS,)), "one finite score",
                   "ConfigError: .*no CLS token"),
    "secret grid": (Score(column), "the grid is not read unless", "on a single row"),
    "never refuses": (NeverRefuses(), r"needs_cls: check\(\) refuses a model", "was accepted"),
    "always refuses": (AlwaysRefuses(), "one finite score", "refuses every model drawn"),
    "builds nothing": (BuildsNothing(), "one finite score", r"build\(\) gives None"),
}  # fmt: skip
PLACES = "exactly P places are dropped"
SELECTORS = {
    "one more": (Choice(lambda s, c: best(s, min(c + 1, s.num_tokens - 1)), -2), PLACES,
                 "P=0: expected keep of shape"),
    "keeps twice": (Choice(lambda s, c: replace(best(s, c), keep=best(s, c).keep[:, :1].expand(
                    -1, s.num_tokens - c))), PLACES, r"do not name each of the \d places"),
    "partners go": (Choice(lambda s, c: replace(best(s, c), partner=best(s, c).drop)),
                    "partners are kept tokens", r"P=1: partners \[\[\d\]\] are dropped"),
    "keeps the worst": (Choice(lambda s, c: replace(best(s, c, lambda s: -length(s)),
                        score=length(s))), "the highest scores are kept", "expected to keep"),
    "late ties": (Choice(late_ties), "the lower place wins a tie", "expected to keep"),
    "too greedy": (Choice(most=1), PLACES, r"limit\(1\) is 2, of 1 tokens"),
    "forgets padding": (Adaptive(lambda s, alive: bright(s, alive) | ~alive),
                        "once, and no padding", "places"),
    "keeps none": (Adaptive(lambda s, alive: torch.zeros_like(alive)), "no padding", "images keep"),
    "too wide": (Adaptive(change=padded), "no padding", "places for at most"),
    "says nothing": (Adaptive(change=lambda chosen: replace(chosen, gone=None)), "no padding",
                     "with alive and gone"),
}  # fmt: skip
LAYOUT = "image tokens, with their positions and sizes"
FUSERS = {
    "loses one": (Spoiled(lambda old, new: replace(new, x=new.x[:, :-1])), LAYOUT,
                  "expected tokens of shape"),
    "wrong type": (Spoiled(lambda old, new: replace(new, x=new.x.double())), LAYOUT,
                   "expected tokens of .* torch.float32, got .* torch.float64"),
    "old index": (Spoiled(lambda old, new: replace(new, index=old.index[:, : new.num_tokens])),
                  LAYOUT, "expected index .* got"),
    "old sizes": (Spoiled(lambda old, new: replace(new, size=old.size)), LAYOUT,
                  "expected sizes of shape"),
    "feeds the prefix": (Spoiled(lambda old, new: replace(new, x=torch.cat((new.prefix
                         + old.image.mean(dim=1, keepdim=True), new.image), dim=1))),
                         "prefix tokens neither move nor change", "before and after"),
    "not linear": (Spoiled(lambda old, new: with_image(new, new.image.abs())),
                   "linear in the tokens", "off by up to"),
    "wrong record": (Carried(lambda s, chosen: TwoFold(chosen.keep, chosen.drop)),
                     "the weights that a trace records", "recorded weights × tokens"),
    "detached": (Spoiled(lambda old, new: with_image(new, new.image.detach())),
                 "gradients reach every kept token", "no gradient"),
    "forgets sizes": (Forgetful(), "conserves_size: the sizes add up", "sums of the sizes"),
    "chance": (Spoiled(lambda old, new: with_image(new, new.image * torch.rand(()))), "", ""),
}  # fmt: skip
NODES, EDGES, WEIGHTS = "a graph over the N0", "no self-loops", r"weights are D\^-1/2 A D\^-1/2"
GRAPHS = {
    "self-loops": (Neighbours(lambda edges, x0, grid: torch.ones_like(edges)), EDGES,
                   r"self-loops at \(image, node\) \[\[0, 0\]\]"),
    "by rows": (Rows(lambda edges, x0, grid: edges.triu(), lambda graph: replace(
                graph, weights=graph.values / graph.degree().clamp_min(1)[..., None])), WEIGHTS,
                "off by up to"),
    "lonely NaN": (Neighbours(lambda edges, x0, grid: edges & (torch.arange(x0.shape[1]) > 0)
                   [:, None], spread), WEIGHTS, "some weights are not finite"),
    "too few nodes": (Neighbours(spoil=cut), NODES, "expected 1 nodes .* got 0"),
    "off the grid": (Neighbours(spoil=lambda graph: replace(
                     graph, neighbours=graph.neighbours + 1)), NODES, "off the grid"),
    "twice": (Neighbours(spoil=doubled), "no edge twice", "some neighbour is listed twice"),
    "one way": (Neighbours(lambda edges, x0, grid: edges.triu(), lambda graph: replace(
                graph, directed=False)), EDGES, "undirected: A and Aᵀ"),
    "forwards": (Neighbours(lambda edges, x0, grid: edges.triu()),
                 "equivariant: permuting the tokens", "the graph for permuted tokens"),
    "too many": (Semantic(M=1000), NODES, "refuses every model drawn"),
}  # fmt: skip
ONE = "one possible count per block"
SCHEDULES = {
    "too many": (Counts(lambda context: (context.patches,) + (0,) * (context.depth - 1)), ONE,
                 "block 0: 1 of 1 tokens removed, expected 0 to 0"),
    "backwards": (Counts(lambda context: (-1,) * context.depth), ONE, "block 0: -1 of 1 tokens"),
    "too short": (Counts(lambda context: ()), ONE, "0 counts for 1 blocks"),
    "never possible": (PerBlock(lambda tokens: tokens + 5), ONE,
                       r"refuses every model drawn.*: PerBlock\(.*\) asks block"),
    "a share": (PerBlock(lambda tokens: tokens / 10), ONE, "PartError: .*expected a whole number"),
    "halves": (Counts(lambda context: (0.5,) * context.depth), ONE, "a Python int, got 0.5"),
    "a list": (Counts(lambda context: [0] * context.depth), ONE, "expected a tuple of counts"),
    "crashes": (Counts(lambda context: (1 // (context.patches - 1),) * context.depth), ONE,
                "ZeroDivisionError"),
    "changes": (Counts(lambda context: (next(COUNTER) % 2 * (context.limit(context.patches) > 0),)
                + (0,) * (context.depth - 1)), "deterministic: the same model|one possible",
                "called twice|tried again|Python int"),
}  # fmt: skip
TABLES = {"scorer": SCORERS, "selector": SELECTORS, "fuser": FUSERS, "graph": GRAPHS,
          "schedule": SCHEDULES}  # fmt: skip
SLOW = ("transposed", "secret CLS", "keeps twice", "too greedy", "old index", "wrong type",
        "lonely NaN", "off the grid", "too few nodes", "backwards", "halves")  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [
    pytest.param(kind, name, marks=pytest.mark.slow if name in SLOW else ())
    for kind, table in TABLES.items() for name in table
])  # fmt: skip
def test_a_planted_fault_is_found(kind: str, name: str) -> None:
    part, promise, found = TABLES[kind][name]
    message = rf"(?s){kind} {type(part).__name__}\(.*\) breaks its contract.*{promise}.*(?:{found})"
    with pytest.raises(AssertionError, match=message):
        CHECKS[kind](part, max_examples=15)


@pytest.mark.parametrize("kind", ["scorer", "selector", "fuser", "graph"])
def test_a_nan_in_any_check_breaks_the_promise_of_finite_numbers(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor, common = [1.0], Suite.keeps_common_promises

    def spoiled(*given: Any, **options: Any) -> None:
        factor[0] = float("nan")  # no earlier check has seen one
        common(*given, **options)

    monkeypatch.setattr(Suite, "keeps_common_promises", spoiled)
    part, promise = {
        "scorer": (Score(lambda s, a: length(s) * factor[0]), "one finite score"),
        "selector": (Choice(lambda s, c: replace(best(s, c), score=length(s) * factor[0])),
                     "finite scores"),
        "fuser": (Spoiled(lambda old, new: with_image(new, new.image * factor[0])),
                  "n − P . extra finite image tokens"),
        "graph": (Neighbours(spoil=lambda g: replace(g, weights=g.weights * factor[0])),
                  r"weights are D\^-1/2 A D\^-1/2, and finite"),
    }[kind]  # fmt: skip
    with pytest.raises(AssertionError, match=f"promise: {promise}.*\n.*not finite. Look for 0/0"):
        CHECKS[kind](part, max_examples=6)


def test_a_fuser_that_needs_partners_passes_with_them() -> None:
    def partners(state: TokenState, selection: Selection) -> Transport:
        assert selection.partner is not None, "partners, please"
        return carry(state, selection)

    check_fuser(Carried(partners), partners=True, max_examples=8)
    with pytest.raises(AssertionError, match="partners, please"):
        check_fuser(Carried(partners), max_examples=8)


def test_names_that_are_unknown_and_other_kinds_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'DiagAttn'"):
        check_scorer("DiagAtn")
    with pytest.raises(TypeError, match="expected a schedule"):
        check_schedule(Score())  # type: ignore[arg-type]
