"""From a model to a graph, and what does not become one."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.errors import InputError, PartError
from tokenred.core.part import Traits
from tokenred.export import ExportError
from tokenred.export.traced import check_model, trace

OPTIONS: dict[str, Any] = {"dynamic_batch": True, "engines": (FusedEngine(), PlainEngine())}


def test_the_model_stays_what_it_was(vit) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(depth=1), tr.strategy("topk", layers=(0,)), check_finite=True)
    reduced.compile(backend="eager")
    engines, compiled = reduced.engines, reduced._compiled_call_impl
    assert check_model(torch.compile(reduced, backend="eager")) is reduced
    traced = trace(check_model(reduced), None, **OPTIONS)
    assert reduced.engines is engines
    assert reduced._compiled_call_impl is compiled
    assert reduced.check_finite
    assert traced.model is reduced
    assert set(traced.program.state_dict) == set(reduced.state_dict())
    # No copy of the weights.
    weight = traced.program.state_dict["head.weight"]
    assert weight.data_ptr() == reduced.head.weight.data_ptr()


@pytest.mark.parametrize(
    ("dynamic", "batch", "checked"), [(True, "batch", (1, 3)), (False, 1, (1,))]
)
def test_ports(dynamic: bool, batch: object, checked: object, vit) -> None:  # type: ignore[no-untyped-def]
    traced = trace(vit(in_chans=2), None, dynamic_batch=dynamic, engines=())
    taken, given = traced.ports()
    assert list(taken.values()) == [(batch, 2, 32, 32)]
    assert list(given.values()) == [(batch, 5)]
    batches = traced.agreement(traced.model, 1e-4).batches
    assert batches == checked


def test_no_map_where_nothing_looks_at_it(vit) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(), tr.strategy("tome", r=3))

    def operators(*engines: object) -> list[str]:
        traced = trace(reduced, None, dynamic_batch=True, engines=engines)  # type: ignore[arg-type]
        return [str(node.target) for node in traced.program.graph.nodes]

    fused = "aten.scaled_dot_product_attention.default"
    assert operators(FusedEngine(), PlainEngine()).count(fused) == 2
    assert operators(PlainEngine()).count(fused) == 0


def test_sizes(vit) -> None:  # type: ignore[no-untyped-def]
    for model in (vit(), tr.wrap(vit(), "gtp")):
        for size in ((32,), (0, 32)):
            with pytest.raises(InputError, match="image_size as"):
                trace(model, size, **OPTIONS)
        with pytest.raises(InputError, match="40"):
            trace(model, (40, 40), **OPTIONS)
    with pytest.raises(InputError, match="pass image_size="):
        trace(nn.Conv2d(3, 4, 3), None, **OPTIONS)
    traced = trace(nn.Conv2d(2, 4, 3, padding=1), (8, 6), **OPTIONS)
    assert traced.ports()[1].popitem()[1] == ("batch", 4, 8, 6)


def test_the_size_of_a_model_that_tells_it_in_its_configuration() -> None:
    model = nn.Conv2d(3, 4, 3)
    model.pretrained_cfg = {"input_size": (3, 10, 12)}  # type: ignore[assignment]
    assert trace(model, None, **OPTIONS).example.shape == (2, 3, 10, 12)


def test_refused(vit) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PartError, match="got NoneType"):
        check_model(None)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=r"eval mode.*model\.eval\(\)"):
        check_model(tr.wrap(vit(), "gtp").train())
    with pytest.raises(ExportError, match="no weights"):
        check_model(nn.Identity().eval())
    pair = nn.Conv2d(3, 4, 3).eval()
    pair.forward = lambda x: (x, x)  # type: ignore[method-assign]
    with pytest.raises(ExportError, match="one tensor, got tuple"):
        trace(pair, (8, 8), **OPTIONS)


class Choosy(tr.Scorer):
    """Looks at a value to decide what to compute."""

    traits: ClassVar[Traits] = Traits()

    def __call__(self, state, attention):  # type: ignore[no-untyped-def]
        score = state.image.norm(dim=-1)
        return -score if bool(score.mean() > 1) else score


def test_what_depends_on_the_images_is_refused_with_the_reason(vit) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(), tr.Strategy(Choosy(), schedule=2))
    with pytest.raises(ExportError, match=r"Choosy\(\) looks at the images to decide how many"):
        trace(reduced, None, **OPTIONS)


class Adaptive(tr.Selector):
    """As many tokens as the images want."""

    def adaptive(self, layer: int, depth: int) -> bool:
        return layer == 1

    def __call__(self, state, attention, count):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def test_adaptive_counts_are_refused_before_any_work(vit) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(), tr.Strategy(Adaptive(), fuser="prune"))
    with pytest.raises(ExportError, match=r"Adaptive\(\) looks at the images"):
        check_model(reduced)


class Broken(tr.Scorer):
    traits: ClassVar[Traits] = Traits()

    def __call__(self, state, attention):  # type: ignore[no-untyped-def]
        if torch.compiler.is_compiling():
            raise OSError("not while tracing")
        return state.image.norm(dim=-1)


def test_whatever_stops_the_tracer_is_shown(vit) -> None:  # type: ignore[no-untyped-def]
    reduced = tr.wrap(vit(), tr.Strategy(Broken(), schedule=2))
    with pytest.raises(ExportError, match=r"cannot trace.*not while tracing"):
        trace(reduced, None, **OPTIONS)
