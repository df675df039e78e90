"""From a model to a graph, and what cannot become one."""

from typing import Any

import pytest
import torch
from torch import nn

import tokenred as tr
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.errors import InputError, PartError
from tokenred.export import ExportError
from tokenred.export.traced import check_model, trace

OPTIONS: dict[str, Any] = {"dynamic_batch": True, "engines": (FusedEngine(), PlainEngine())}


def test_the_model_stays_what_it_was(vit: Any) -> None:
    reduced = tr.wrap(vit(depth=1), tr.strategy("topk", layers=(0,)), check=True)
    engines, compiled = reduced.engines, torch.compile(reduced, backend="eager")
    assert check_model(compiled) is reduced
    traced = trace(check_model(reduced), None, **OPTIONS)
    assert reduced.engines is engines
    assert reduced.check
    assert traced.model is reduced
    assert set(traced.program.state_dict) == set(reduced.state_dict())
    # No copy of the weights.
    weight = traced.program.state_dict["head.weight"]
    assert weight.data_ptr() == reduced.head.weight.data_ptr()


def test_no_map_where_nothing_looks_at_it(vit: Any) -> None:
    reduced = tr.wrap(vit(depth=1), tr.strategy("tome", r=3))
    fused = "aten.scaled_dot_product_attention.default"
    for engines, count in (((FusedEngine(), PlainEngine()), 1), ((PlainEngine(),), 0)):
        traced = trace(reduced, None, dynamic_batch=True, engines=engines)
        assert [str(node.target) for node in traced.program.graph.nodes].count(fused) == count


def test_sizes(vit: Any) -> None:
    for model in (vit(), tr.wrap(vit(), "gtp")):
        for size in ((32,), (0, 32)):
            with pytest.raises(InputError, match="image_size as"):
                trace(model, size, **OPTIONS)
        with pytest.raises(InputError, match="40"):
            trace(model, (40, 40), **OPTIONS)
    model = nn.Conv2d(2, 4, 3, padding=1).eval()
    with pytest.raises(InputError, match="pass image_size="):
        trace(model, None, **OPTIONS)
    assert trace(model, (8, 6), **OPTIONS).logits.shape == (2, 4, 8, 6)
    model.pretrained_cfg = {"input_size": (3, 10, 12)}  # type: ignore[assignment]
    assert trace(model, None, **OPTIONS).images.shape == (2, 2, 10, 12)


def test_what_is_no_model_for_a_file_is_refused(vit: Any) -> None:
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


class Norm(tr.Scorer):
    """Scores of the tokens, unless something is wrong."""

    def __call__(self, state: Any, attention: Any) -> Any:
        return state.image.norm(dim=-1)


class Choosy(Norm):
    """Looks at a value to decide what to compute."""

    def __call__(self, state: Any, attention: Any) -> Any:
        score = super().__call__(state, attention)
        return -score if bool(score.mean() > 1) else score


class Broken(Norm):
    """Cannot be traced."""

    def __call__(self, state: Any, attention: Any) -> Any:
        if torch.compiler.is_compiling():
            raise OSError("not while tracing")
        return super().__call__(state, attention)


class Adaptive(tr.Selector):
    """As many tokens as the images want."""

    def adaptive(self, layer: int, depth: int) -> bool:
        return layer == 0

    def __call__(self, state: Any, attention: Any, count: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (tr.Strategy(Choosy(), schedule=2), r"Choosy\(\) looks at the images to decide how many"),
        (tr.Strategy(Broken(), schedule=2), "cannot trace.*not while tracing"),
        (tr.Strategy(Adaptive(), fuser="prune"), r"Adaptive\(\) looks at the images"),
    ],
)
def test_what_does_not_fit_into_a_graph_is_refused_with_the_reason(
    strategy: tr.Strategy, message: str, vit: Any
) -> None:
    with pytest.raises(ExportError, match=message):
        trace(check_model(tr.wrap(vit(), strategy)), None, **OPTIONS)
