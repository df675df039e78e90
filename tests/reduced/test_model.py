"""A wrapped model: what it is found to have and says of itself, and what it refuses."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor

import tokenred as tr
from tests.backbones.forms import images_for, vit
from tokenred.core.errors import (
    BackboneError,
    ConfigError,
    InputError,
    PartError,
    ScheduleError,
    TokenredError,
    UnknownNameError,
    UnusedWarning,
)
from tokenred.core.state import Selection
from tokenred.strategies.transport import Transport

GTP = tr.strategy("gtp", P=2, M=3)


def test_timm_finds_what_it_looks_for() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    reduced = tr.wrap(model, GTP)
    assert resolve_model_data_config(reduced) == resolve_model_data_config(model)
    assert reduced.num_classes == 3
    assert reduced.no_weight_decay() == model.no_weight_decay()
    assert reduced.get_classifier() is model.head
    assert {"blocks", "forward_head", "run_with_trace"} <= set(dir(reduced))


def test_with_strategy_and_wrapping_again() -> None:
    model = vit()
    first = tr.wrap(model, GTP, engine="plain", check=True)
    for second in (first.with_strategy("topk"), tr.wrap(first, "topk")):
        assert second.base is model
        assert second.strategy == tr.strategy("topk")
        expected = tr.wrap(model, "topk")(images_for(model))
        torch.testing.assert_close(second(images_for(model)), expected)
    assert first.with_strategy(GTP).check
    assert first.strategy == GTP


def test_repr_has_the_layers_and_the_share_of_the_dense_model() -> None:
    model = vit(img_size=32)
    reduced = tr.wrap(model, GTP)
    text = repr(reduced)
    assert "MixedAttn" in text
    assert "Propagate" in text
    for row in (["0", "16", "2", "14"], ["1", "14", "2", "12"], ["2", "12", "2", "10"]):
        assert any(line.split()[:4] == row for line in text.splitlines())
    whole = tr.gmacs(model)
    assert f"of {whole:.3g} GMACs ({tr.gmacs(reduced) / whole:.1%})" in text


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 32, 40), r"must be 32×24, got 32×40.*dynamic_img_size"),
        (torch.zeros(2, 1, 32, 24), r"\(batch, 3, height, width\), got \(2, 1, 32, 24\)"),
        (torch.zeros(3, 32, 24), r"got \(3, 32, 24\)"),
        (torch.zeros(2, 3, 32, 24).double(), r"torch.float32 like the weights, got torch.float64"),
        (torch.zeros(2, 3, 32, 24, dtype=torch.uint8), r"got torch.uint8.*scaled"),
    ],
)
@pytest.mark.parametrize("call", ["__call__", "forward_features", "run_with_trace"])
def test_images(images: Tensor, message: str, call: str) -> None:
    with pytest.raises(InputError, match=message):
        getattr(tr.wrap(vit(), GTP), call)(images)


def test_integers_under_autocast_and_dynamic_sides() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="uint8"):
        tr.wrap(vit(), GTP)(torch.zeros(2, 3, 32, 24, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"multiples of the patch 8×8, got 32×36"):
        tr.wrap(vit(dynamic_img_size=True), GTP)(torch.zeros(2, 3, 32, 36))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values(value: float) -> None:
    images = torch.zeros(3, 3, 32, 24)
    checked = tr.wrap(vit(), "topk", check=True)
    assert checked(images).isfinite().all()
    images[1, 0, 4, 5] = value
    with pytest.raises(InputError, match=r"images \[1\] of the batch"):
        checked(images)
    assert tr.wrap(vit(), "topk")(images).shape == (3, 5)


# ---------------------------------------------------------------- parts


class WrongShape(tr.Scorer):
    """Scores the prefix too."""

    def __call__(self, state: tr.TokenState, attention: tr.AttentionStats) -> Tensor:
        return state.x.sum(dim=-1)


class Greedy(tr.Fuser):
    """Loses a token too many."""

    def __call__(
        self, state: Any, selection: Any, graph: Any, attention: tr.AttentionStats
    ) -> tr.TokenState:
        keep = selection.keep[:, 1:]
        return tr.Transport(keep, selection.drop).apply(state)


class NoTransport(tr.Fuser):
    def transport(self, state: Any, selection: Any, graph: Any, attention: Any) -> Any:
        return None


class NoSelection(tr.Selector):
    def __call__(self, state: Any, attention: Any, count: int) -> Any:
        return None


class Unasked(tr.Scorer):
    """Reads what it did not ask for."""

    def __call__(self, state: tr.TokenState, attention: tr.AttentionStats) -> Tensor:
        return attention[tr.AttentionStat.diagonal("max")]


class Matrix(tr.GraphBuilder):
    def __call__(self, x0: Tensor, grid: tuple[int, int]) -> Any:
        return torch.eye(x0.shape[1])


class Transposed(tr.Fuser):
    def transport(self, state: Any, selection: Any, graph: Any, attention: Any) -> Transport:
        weights = torch.zeros(len(state.x), selection.drop.shape[1], selection.keep.shape[1])
        return Transport(selection.keep, selection.drop, move=weights)


class Half(tr.Schedule):
    def count(self, layer: int, tokens: int, context: Any) -> Any:
        return 3.5


class Twice(tr.Selector):
    def __call__(self, state: Any, attention: Any, count: int) -> Selection:
        every = torch.arange(state.num_tokens).expand(len(state.x), -1)
        return Selection(keep=every[:, count:], drop=every[:, -count:])


class Unknown(tr.Scorer):
    def __call__(self, state: Any, attention: Any) -> Tensor:
        return torch.full((len(state.x), state.num_tokens), float("nan"))


class Empty(tr.Scorer):
    pass


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"scorer": WrongShape()}, r"shape \(2, 12\).*got \(2, 13\)"),
        ({"fuser": Greedy()}, r"must leave 10.*of 12.*got 9"),
        ({"fuser": NoTransport()}, r"NoTransport: transport must return a .*Transport, got None"),
        ({"scorer": NoSelection()}, r"NoSelection must return a .*Selection, got None"),
        ({"scorer": Unasked()}, r"diagonal.*not computed.*requires"),
        ({"graph": Matrix(), "fuser": "propagate"}, r"Matrix must return .*Graph.* got tensor"),
        ({"fuser": Transposed()}, r"move as \(batch, \d+, 2\), remaining × removed"),
        ({"schedule": Half()}, r"whole number from count\(\), got 3\.5 for block 0"),
        ({"scorer": Twice()}, r"Twice: keep and drop must hold each of .* come twice"),
        ({"scorer": Unknown()}, "Unknown gave scores that are NaN"),
        ({"scorer": Empty()}, "Empty has no __call__"),
    ],
)
def test_what_a_part_does_wrong_is_said(fields: dict[str, Any], told: str) -> None:
    strategy = tr.Strategy(**{"scorer": "CosSim", "schedule": 2, **fields})
    model = vit()
    with pytest.raises(TokenredError, match=told):
        tr.wrap(model, strategy, check=True)(images_for(model))


class NeedsGraph(tr.Fuser):
    """Reads the graph without looking whether there is one."""

    uses_graph = True

    def transport(
        self, state: Any, selection: Selection, graph: Any, attention: tr.AttentionStats
    ) -> Transport:
        move = graph.weights_between(selection.keep, selection.drop)
        return Transport(selection.keep, selection.drop, move=move)


class Gathers(NeedsGraph):
    """Reads what no graph has either."""

    def transport(
        self, state: Any, selection: Selection, graph: Any, attention: tr.AttentionStats
    ) -> Transport:
        raise AssertionError(graph.gather(1, selection.keep))


def test_a_fuser_that_needs_a_graph_says_so() -> None:
    strategy, images = (
        tr.Strategy("Random", fuser=NeedsGraph(), schedule=2),
        torch.zeros(2, 3, 32, 24),
    )
    assert tr.wrap(vit(), strategy.replace(graph="spatial"))(images).shape == (2, 5)
    with pytest.warns(UnusedWarning, match="without a graph NeedsGraph moves nothing"):
        reduced = tr.wrap(vit(), strategy)
    with pytest.raises(
        PartError, match=r"NeedsGraph\(\) reads graph.weights_between, and there is no"
    ):
        reduced(images)
    with pytest.warns(UnusedWarning, match="Gathers moves nothing"):
        reduced = tr.wrap(vit(), strategy.replace(fuser=Gathers()))
    with pytest.raises(PartError, match=r"Gathers\(\) reads graph.gather, and there is no"):
        reduced(images)


class Undeclared(NeedsGraph):
    uses_graph = False


class ByDegree(tr.Scorer):
    """Reads the graph of the state."""

    declared: bool = False

    @property
    def uses_graph(self) -> bool:
        return self.declared

    def __call__(self, state: Any, attention: tr.AttentionStats) -> torch.Tensor:
        return state.graph.degree().expand(len(state.x), -1).gather(1, state.index)


class Neighbours(tr.Router):
    """The first half of the tokens passes; reads the graph of the state."""

    declared: bool = False

    @property
    def uses_graph(self) -> bool:
        return self.declared

    def active(self, layer: int, depth: int, patches: int) -> int | None:
        return patches // 2

    def split(self, state: Any, preview: Any, count: int) -> Any:
        assert state.graph.degree().shape[-1] == 12
        return replace(state, x=state.x[:, : 1 + count], index=state.index[:, :count]), {}

    def join(self, before: Any, active: Any, resting: Any, attention: Any) -> Any:
        return before


class Mistaken(NeedsGraph):
    def __call__(self, state: Any, *others: Any) -> Any:
        return state.nothing


def test_who_reads_a_graph_declares_it() -> None:
    images = torch.zeros(2, 3, 32, 24)

    def run(scorer: Any, fuser: Any, router: Any = "take_all") -> torch.Size:
        count = 2 if router == "take_all" else 0
        strategy = tr.Strategy(scorer, fuser=fuser, router=router, schedule=count, graph="spatial")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedWarning)
            return tr.wrap(vit(), strategy)(images).shape

    with pytest.raises(PartError, match="Write uses_graph = True into Undeclared"):
        run("Random", Undeclared())
    with pytest.raises(PartError, match="Write uses_graph = True into ByDegree"):
        run(ByDegree(), "prune")
    assert run(ByDegree(declared=True), "prune") == (2, 5)
    with pytest.raises(PartError, match="Write uses_graph = True into Neighbours"):
        run("Random", "prune", Neighbours())
    assert run("Random", "prune", Neighbours(declared=True)) == (2, 5)
    # Another error of the part's own stays what it is.
    with pytest.raises(AttributeError, match="nothing"):
        run("Random", Mistaken())


@pytest.mark.parametrize("strategy", [tr.strategy("evit"), tr.Strategy("CLSAttn", schedule=1)])
@pytest.mark.parametrize("reg_tokens", [0, 2])
def test_no_class_token(strategy: tr.Strategy, reg_tokens: int) -> None:
    model = vit(class_token=False, global_pool="avg", reg_tokens=reg_tokens)
    with pytest.raises(ConfigError, match=r"CLSAttn.*CLS.*MixedAttn"):
        tr.wrap(model, strategy)


@pytest.mark.parametrize("graph", ["mixed", "semantic"])
def test_more_neighbours_than_tokens(graph: str) -> None:
    for neighbours in (12, 40):
        with pytest.raises(ConfigError, match=rf"got M={neighbours} for 12 tokens"):
            tr.wrap(vit(), tr.strategy("gtp", P=2, M=neighbours, graph=graph))
    # 11 others are there.
    tr.wrap(vit(), tr.strategy("gtp", P=2, M=11, graph=graph))


@pytest.mark.parametrize(
    ("strategy", "layer", "asked", "available"),
    [
        (tr.strategy("gtp", P=5, M=3), 2, 5, 1),
        (tr.strategy("gtp", P=12, M=3), 0, 12, 11),
        (tr.Strategy("Random", schedule=tr.PerLayer((0, 20, 0))), 1, 20, 11),
    ],
)
def test_more_than_there_are(strategy: tr.Strategy, layer: int, asked: int, available: int) -> None:
    model = vit()
    before = dict(model.__dict__), list(model.state_dict())
    with pytest.raises(ScheduleError) as error:
        tr.wrap(model, strategy)
    numbers = "".join(c if c.isdigit() else " " for c in str(error.value)).split()
    assert {str(layer), str(asked), str(available)} <= set(numbers)
    # A failed wrap changes nothing.
    assert (dict(model.__dict__), list(model.state_dict())) == before


# ---------------------------------------------------------------- calls


def test_arguments_of_wrap() -> None:
    with pytest.raises(PartError, match="expected a Strategy"):
        tr.wrap(vit(), 3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'gtp'"):
        tr.wrap(vit(), "gtpp")
    with pytest.raises(ConfigError, match="engine"):
        tr.wrap(vit(), "gtp", engine="fastest")
    with pytest.raises(ConfigError, match="there is none before block 0"):
        tr.wrap(vit(), GTP.replace(where="before_block"))


def test_prompts_and_habits() -> None:
    base = vit()
    reduced, images = tr.wrap(base, tr.strategy("tome", r=2)), images_for(base)
    with pytest.raises(ConfigError, match=r"with_strategy\('tome:r=3'\)"):
        reduced.r = 3
    plain = base._pos_embed
    base._pos_embed = lambda x: torch.cat(
        (plain(x)[:, :1], torch.zeros(len(x), 5, 32), plain(x)[:, 1:]), 1
    )
    for strategy in (GTP, tr.strategy("tome", r=2)):
        with pytest.raises(BackboneError, match=r"num_prefix_tokens = 6|_pos_embed"):
            tr.wrap(base, strategy)(images)


def test_data_parallel_is_refused_before_the_base_is_touched() -> None:
    base = vit()
    own = {name: id(parameter) for name, parameter in base.named_parameters()}
    with pytest.raises(TokenredError, match="DistributedDataParallel"):
        tr.wrap(base, GTP)._replicate_for_data_parallel()
    assert {name: id(parameter) for name, parameter in base.named_parameters()} == own


def test_a_model_in_the_place_of_the_strategy_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'P'.*wrap\(model, 'gtp:P=4'\)"):
        tr.wrap(vit(), "gtp", P=4)
    with pytest.raises(UnknownNameError, match=r"wrap\(model, 'gtp:M=4@0.65'\)\."):
        tr.wrap(vit(), "gtp", M=4, budget=0.65)
    with pytest.raises(UnknownNameError, match=r"no parameter 'device'\. Known: check, engine"):
        tr.wrap(vit(), "gtp", device="cuda")
    with pytest.raises(InputError, match=r"expected image_shape as .*, got 224"):
        tr.gmacs(vit(), 224)  # type: ignore[arg-type]
    with pytest.raises(PartError, match="swap them"):
        tr.wrap("gtp", vit())
