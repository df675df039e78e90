"""What a wrapped model refuses, with what was expected, what came and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tokenred.core.errors import (
    BackboneError,
    ConfigError,
    InputError,
    PartError,
    ScheduleError,
    TokenredError,
    UnknownNameError,
)


def _model(**options: Any) -> VisionTransformer:
    tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()


NO_CLS = {"class_token": False, "global_pool": "avg"}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 32, 40), r"must be 32×32, got 32×40.*dynamic_img_size"),
        (torch.zeros(2, 1, 32, 32), r"\(batch, 3, height, width\), got \(2, 1, 32, 32\)"),
        (torch.zeros(3, 32, 32), r"got \(3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32).double(), r"torch.float32 like the weights, got torch.float64"),
        (torch.zeros(2, 3, 32, 32).bfloat16(), r"got torch.bfloat16"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"got torch.uint8.*scaled"),
    ],
)
@pytest.mark.parametrize("call", ["__call__", "forward_features", "run_with_trace"])
def test_images(images: Tensor, message: str, call: str) -> None:
    reduced = tr.wrap(_model(), tr.strategy("gtp", P=2, M=3))
    with pytest.raises(InputError, match=message):
        getattr(reduced, call)(images)


def test_integers_under_autocast() -> None:
    reduced = tr.wrap(_model(), tr.strategy("gtp", P=2, M=3))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="uint8"):
        reduced(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_sides_of_dynamic_images() -> None:
    reduced = tr.wrap(_model(dynamic_img_size=True), tr.strategy("gtp", P=2, M=3))
    with pytest.raises(InputError, match=r"multiples of the patch 8×8, got 32×36"):
        reduced(torch.zeros(2, 3, 32, 36))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values(value: float) -> None:
    images = torch.zeros(3, 3, 32, 32)
    images[1, 0, 4, 5] = value
    with pytest.raises(InputError, match=r"images \[1\] of the batch"):
        tr.wrap(_model(), "topk", check_finite=True)(images)
    assert tr.wrap(_model(), "topk")(images).shape == (3, 5)
    images[1, 0, 4, 5] = 0
    assert tr.wrap(_model(), "topk", check_finite=True)(images).isfinite().all()


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


class Undeclared(tr.Scorer):
    """Reads what it did not ask for."""

    def __call__(self, state: tr.TokenState, attention: tr.AttentionStats) -> Tensor:
        return attention[tr.AttentionStat.diagonal("max")]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (tr.Strategy(WrongShape(), schedule=2), r"shape \(2, 16\).*got \(2, 17\)"),
        (tr.Strategy("Random", fuser=Greedy(), schedule=2), r"must leave 14.*of 16.*got 13"),
        (tr.Strategy(Undeclared(), schedule=2), r"diagonal.*not computed.*requires"),
    ],
    ids=["scorer", "fuser", "requires"],
)
def test_parts_that_break_their_contract(strategy: tr.Strategy, message: str) -> None:
    with pytest.raises(PartError, match=message):
        tr.wrap(_model(), strategy)(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("strategy", [tr.strategy("evit"), tr.Strategy("CLSAttn", schedule=1)])
@pytest.mark.parametrize("reg_tokens", [0, 2])
def test_no_class_token(strategy: tr.Strategy, reg_tokens: int) -> None:
    with pytest.raises(ConfigError, match=r"CLSAttn.*CLS.*MixedAttn"):
        tr.wrap(_model(**NO_CLS, reg_tokens=reg_tokens), strategy)


@pytest.mark.parametrize("graph", ["mixed", "semantic"])
@pytest.mark.parametrize("neighbours", [16, 40])
def test_more_neighbours_than_tokens(graph: str, neighbours: int) -> None:
    with pytest.raises(ConfigError, match=rf"got M={neighbours} for 16 tokens"):
        tr.wrap(_model(), tr.strategy("gtp", P=2, M=neighbours, graph=graph))
    # 15 others are there.
    tr.wrap(_model(), tr.strategy("gtp", P=2, M=15, graph=graph))


@pytest.mark.parametrize(
    ("strategy", "layer", "asked", "available"),
    [
        (tr.strategy("gtp", P=6, M=3), 2, 6, 3),
        (tr.strategy("gtp", P=16, M=3), 0, 16, 15),
        (tr.Strategy("Random", schedule=tr.PerLayer((0, 20, 0))), 1, 20, 15),
    ],
)
def test_more_than_there_are(strategy: tr.Strategy, layer: int, asked: int, available: int) -> None:
    with pytest.raises(ScheduleError) as error:
        tr.wrap(_model(), strategy)
    numbers = "".join(c if c.isdigit() else " " for c in str(error.value)).split()
    assert {str(layer), str(asked), str(available)} <= set(numbers)


def test_a_failed_wrap_changes_nothing() -> None:
    model = _model()
    before = dict(model.__dict__), list(model.state_dict())
    with pytest.raises(TokenredError):
        tr.wrap(model, tr.strategy("gtp", P=16, M=3))
    assert (dict(model.__dict__), list(model.state_dict())) == before


def test_arguments_of_wrap() -> None:
    with pytest.raises(PartError, match="expected a Strategy"):
        tr.wrap(_model(), 3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'gtp'"):
        tr.wrap(_model(), "gtpp")
    with pytest.raises(ConfigError, match="engine"):
        tr.wrap(_model(), "gtp", engine="fastest")


def test_statistics_before_the_block() -> None:
    with pytest.raises(ConfigError, match="which has not run before the block"):
        tr.strategy("gtp", P=2).replace(where="before_block")


def test_masks_and_prompts_and_habits() -> None:
    reduced, images = tr.wrap(_model(), tr.strategy("tome", r=2)), torch.zeros(2, 3, 32, 32)
    mask = torch.zeros(2, 1, 17, 17)
    for call in (reduced, reduced.forward_features, reduced.forward_intermediates):
        with pytest.raises(ConfigError, match="attn_mask"):
            call(images, attn_mask=mask)
    with pytest.raises(ConfigError, match=r"with_strategy\('tome:r=3'\)"):
        reduced.r = 3
    base = _model()
    plain = base._pos_embed
    base._pos_embed = lambda x: torch.cat(
        (plain(x)[:, :1], torch.zeros(len(x), 5, 32), plain(x)[:, 1:]), 1
    )
    for strategy in (tr.strategy("gtp", P=2, M=3), tr.strategy("tome", r=2)):
        with pytest.raises(BackboneError, match=r"num_prefix_tokens = 6|_pos_embed"):
            tr.wrap(base, strategy)(images)


def test_data_parallel_is_refused_before_the_base_is_touched() -> None:
    base = _model()
    own = {name: id(parameter) for name, parameter in base.named_parameters()}
    with pytest.raises(BackboneError, match="DistributedDataParallel"):
        tr.wrap(base, tr.strategy("tome", r=2))._replicate_for_data_parallel()
    assert {name: id(parameter) for name, parameter in base.named_parameters()} == own
