"""What the kernels of reductions and graphs are held to, beside PyTorch in float64."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

import tokenred as tr
from tests.attention.cases import close
from tests.strategies.recipes.checks import images, model
from tokenred.attention import AttentionStat, pick_engine
from tokenred.attention.stats import AttentionStats
from tokenred.attention.triton import reduces
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import unit_vectors
from tokenred.graphs.graph import Graph
from tokenred.graphs.mixed import Mixed
from tokenred.graphs.semantic import Semantic
from tokenred.strategies.base import Fuser, Scorer, Selector
from tokenred.strategies.fusers.fused_token import FusedToken
from tokenred.strategies.fusers.mean import Mean
from tokenred.strategies.fusers.merge import Merge
from tokenred.strategies.fusers.propagate import Propagate
from tokenred.strategies.fusers.prune import Prune
from tokenred.strategies.kernels import built, fused, selected
from tokenred.strategies.selectors.matching.bipartite_matching import BipartiteMatching
from tokenred.strategies.selectors.padded import padded_selection
from tokenred.strategies.selectors.top_score import TopScore, keep_best


class Tokens(NamedTuple):
    """A reduction, drawn from a seed: image tokens, removed ones, prefix, images, channels, type.

    ``dead``: every fifth token has size 0. ``ties``: few different scores.
    """

    n: int
    gone: int
    p: int = 1
    b: int = 2
    c: int = 24
    dtype: str = "float32"
    dead: bool = False
    ties: bool = False
    sized: bool = True
    seed: int = 0

    def make(self) -> tuple[TokenState, Tensor, Any]:
        """The state, scores, and a draw of more numbers in [0, 1)."""
        made = torch.Generator().manual_seed(self.seed)
        full = self.p + self.n

        def draw(*shape: int) -> Tensor:
            return torch.rand(self.b, *shape, generator=made)

        x = (draw(full, self.c) * 2 - 1).to(getattr(torch, self.dtype))
        size = (draw(full) * 7).ceil()
        if self.dead:
            size[:, self.p + 1 :: 5] = 0
        score = (draw(self.n) * 4).floor() if self.ties else draw(self.n)
        index = torch.arange(self.n).expand(self.b, -1)
        state = TokenState(x, index, self.p, (1, self.n), size=size if self.sized else None)
        return state, score, draw


def select(tokens: Tokens) -> None:
    """What stays and goes is what PyTorch's stable sort says; NaN counts as the highest."""
    from tokenred.attention.triton.reduction import select as run

    _, score, _ = tokens.make()
    score[:, 3::11] = torch.nan
    for given in (
        score,
        score.to(getattr(torch, tokens.dtype)),
        torch.stack((score, score), 1)[:, 0],
    ):
        chosen = keep_best(given.nan_to_num(torch.inf), tokens.gone)
        keep, drop, into, slot = run(given, None, tokens.gone, 0, 0)
        assert torch.equal(keep, chosen.keep)
        assert torch.equal(drop, chosen.drop)
        assert into.numel() == slot.numel() == 0


def reduction(tokens: Tokens, name: str) -> None:
    """A method's reduction by kernels, against the one that PyTorch computes in float64."""
    state, score, draw = tokens.make()
    at_a, at_b = (tokens.n - tokens.p % 2 + 1) // 2, (tokens.n + tokens.p % 2) // 2
    values = {AttentionStat.keys(): draw(2, tokens.p + tokens.n, 8)}
    selector: Selector = TopScore(_Given())
    state = replace(state, memory={"score": score})
    fuser: Fuser = Merge()
    if name in ("matched", "importance"):
        selector = BipartiteMatching("size" if name == "matched" else "importance")
        values[AttentionStat.row("cls", "mean")] = draw(tokens.n)
        values[AttentionStat.values()] = draw(2, tokens.p + tokens.n, 8)
        state = replace(state, cls_index=0 if tokens.p else None)
        assert tokens.gone <= min(at_a, at_b)
    elif name == "propagate":
        grid = (1, tokens.n)
        edges = draw(tokens.n, tokens.n) > 0.5
        fuser = Propagate(0.3)
        state = replace(state, graph=Graph.from_dense(edges, grid).with_columns())
    elif name == "padded":
        # Two tokens stay in the first image alone, and nothing joins anything in the last.
        selector, fuser = _Padded(), Merge(0.1)
    else:
        fuser = {"fused": FusedToken(), "prune": Prune(), "mean": Mean(), "merge": Merge()}[name]
    attention = AttentionStats(values)
    found = selected(selector, state, attention, tokens.gone)
    after = fused(fuser, state, found, attention)
    again = fused(fuser, state, selected(selector, state, attention, tokens.gone), attention)
    known = selector(state, attention, tokens.gone)
    for name in ("keep", "drop", "partner", "slot", "score", "weight"):
        one, other = getattr(found, name), getattr(known, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    doubled = replace(state, x=state.x.double())
    expected = fuser(doubled, known, state.graph, attention)
    close(after.x, expected.x, tokens.dtype)
    assert torch.equal(after.index, expected.index)
    assert (after.size is None) == (expected.size is None)
    if after.size is not None and expected.size is not None:
        close(after.size, expected.size.double())
    assert torch.equal(after.x, again.x)


class _Given(Scorer):
    """The scores of the state."""

    def __call__(self, state: TokenState, attention: AttentionStats) -> Tensor:
        return state.memory["score"]


class _Padded(Selector):
    """The even tokens stay, padded; each other token joins the one before it, or none."""

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        places = torch.arange(state.num_tokens, device=state.x.device).expand_as(state.index)
        even = places % 2 == 0
        partner = torch.where(places % 3 == 0, -1, places - 1)
        return padded_selection(places, even, even | (places > 0), torch.where(even, -1, partner))


def graph(builder: str, n: int, c: int, m: int, dtype: str, device: str = "cpu") -> None:
    """The graph by a kernel has the neighbours that float64 finds, but for rounding; and twice."""
    x = torch.randn(2, n, c, generator=torch.Generator().manual_seed(n)).to(device)
    x[:, n // 2] = 0  # similar to none
    x = x.to(getattr(torch, dtype))
    made, grid = (Mixed if builder == "mixed" else Semantic)(M=m), (1, n)
    found, again, known = built(made, x, grid), built(made, x, grid), made(x.double(), grid)
    assert found is not None
    assert again is not None
    assert known is not None
    assert found.neighbours.shape == known.neighbours.shape
    assert torch.equal(found.neighbours, again.neighbours)
    unit = unit_vectors(x.double())
    similar = unit @ unit.transpose(1, 2)
    one, other = (similar.gather(2, graph.neighbours[..., -m:]) for graph in (found, known))
    torch.testing.assert_close(one, other, rtol=0, atol=2e-6)
    assert all(len(set(row)) == m for row in found.neighbours[0, :, -m:].tolist())


def equal_neighbours(n: int, m: int, device: str = "cpu") -> None:
    """Equal similarities go by position, exactly."""
    x = torch.nn.functional.one_hot(torch.arange(n) % 5, 6).float()[None].to(device)
    made = Semantic(M=m)
    found, known = built(made, x, (1, n)), made(x, (1, n))
    assert found is not None
    assert known is not None
    assert torch.equal(found.neighbours, known.neighbours)
    assert torch.equal(found.weights, known.weights)


def whole_model(method: str) -> None:
    """A model with kernels has the tokens and the logits of the plain one; gradients go without."""
    reduced = tr.wrap(model().float(), method, engine="one_pass")
    plain, x = reduced.with_strategy(method), images().float()
    plain.engines = pick_engine("plain")
    assert not reduces(reduced.engines, x)
    reduced(x).sum().backward()
    with torch.no_grad():
        assert reduces(reduced.engines, x)
        assert not reduces(pick_engine("auto"), x)
        (out, trace), (expected, known) = (m.run_with_trace(x) for m in (reduced, plain))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(trace.states, known.states, strict=True):
        assert torch.equal(one.index, other.index)
