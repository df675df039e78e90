"""A wrapped model and its base: one set of weights, two objects; what is set, found and printed."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.core.info import ModelInfo
from tokenred.models.rebuild import weightless

GTP = tr.strategy("gtp", P=2, M=3)

pytestmark = pytest.mark.filterwarnings(
    "ignore::tokenred.core.errors.UntrainedPartWarning"  # one test below is about it
)


class Judge(nn.Module):
    """A linear score."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(width, 1)
        self.seen_training: bool | None = None

    def forward(self, state: tr.TokenState, attention: tr.AttentionStats) -> Tensor:
        self.seen_training = self.training
        score: Tensor = self.weigh(state.image)
        return score[..., 0]


class Learned(tr.Scorer):
    """A scorer with weights."""

    def build(self, info: ModelInfo) -> nn.Module:
        return Judge(info.width)

    def learned_macs(self, info: ModelInfo, counts: tuple[int, ...]) -> float:
        return 1e9


LEARNED = tr.Strategy(Learned(), schedule=2)


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return VisionTransformer(**{**tiny, "num_classes": 5, **options}).eval()


def _images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _same_weights(one: nn.Module, other: nn.Module) -> None:
    ours = dict(one.named_parameters())
    assert ours
    theirs = dict(other.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)


def test_state_dict_has_the_keys_of_the_base() -> None:
    model = _model(reg_tokens=1)
    reduced = tr.wrap(model, GTP)
    assert list(reduced.state_dict()) == list(model.state_dict())
    _same_weights(reduced, model)
    assert dict(reduced.named_modules()).keys() == dict(model.named_modules()).keys()


def test_learned_parts_have_their_own_keys() -> None:
    model = _model()
    reduced = tr.wrap(model, LEARNED)
    own = {"parts.selector.scorer.weigh.weight", "parts.selector.scorer.weigh.bias"}
    assert set(reduced.state_dict()) == set(model.state_dict()) | own
    assert own.isdisjoint(model.state_dict())
    assert reduced.cost().learned == 1e9
    assert tr.gmacs(reduced) > 1
    reduced.train()(_images()).sum().backward()
    judge = reduced.parts["selector"].scorer
    assert judge.seen_training is True
    reduced.eval()(_images())
    assert judge.seen_training is False
    assert reduced.double().parts["selector"].scorer.weigh.weight.dtype == torch.float64
    assert reduced(_images().double()).dtype == torch.float64


def test_untrained_parts_warn() -> None:
    with pytest.warns(tr.errors.UntrainedPartWarning, match="selector of .*never trained"):
        tr.wrap(_model(), LEARNED)


@pytest.mark.parametrize("strategy", [GTP, LEARNED], ids=["gtp", "learned"])
@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict(strategy: tr.Strategy, assign: bool) -> None:
    source, model = tr.wrap(_model(), strategy), _model()
    for p in source.parameters():
        p.data.normal_(0, 0.2)
    reduced = tr.wrap(model, strategy)
    reduced.load_state_dict(source.state_dict(), assign=assign)
    torch.testing.assert_close(reduced(_images()), source(_images()), rtol=0, atol=0)
    torch.testing.assert_close(model(_images()), source.base(_images()), rtol=0, atol=0)
    assert set(reduced.state_dict()) == set(source.state_dict())


@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict_of_the_base(assign: bool) -> None:
    model, other = _model(), _model(init_values=None)
    for p in other.parameters():
        p.data.normal_(0, 0.2)
    reduced = tr.wrap(model, GTP)
    model.load_state_dict(reduced.state_dict())
    model.load_state_dict(other.state_dict(), assign=assign)
    _same_weights(reduced, model)
    expected = tr.wrap(other, GTP)(_images())
    torch.testing.assert_close(reduced(_images()), expected, rtol=0, atol=0)


def test_the_base_is_left_alone() -> None:
    model = _model()
    before, kind, keys = model(_images()), type(model), dict(model.__dict__)
    reduced = tr.wrap(model, GTP)
    assert not torch.equal(reduced(_images()), before)
    reduced.run_with_trace(_images())
    assert torch.equal(model(_images()), before)
    assert type(model) is kind
    assert model.__dict__.keys() == keys.keys()
    assert all(type(b).__name__ == "Block" for b in model.blocks)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_mode_and_dtype_are_common() -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    assert not reduced.training
    reduced.train()
    assert all(m.training for m in [*reduced.modules(), *model.modules()])
    assert tr.wrap(model, GTP).training
    reduced.eval()
    assert not any(m.training for m in [*reduced.modules(), *model.modules()])
    reduced.to(torch.float64)
    _same_weights(reduced, model)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    model.to(torch.bfloat16)
    _same_weights(reduced, model)
    assert reduced(_images().bfloat16()).dtype == torch.bfloat16
    reduced.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())


def test_to_empty_replaces_the_parameters_of_both() -> None:
    with weightless():
        model = _model()
    reduced = tr.wrap(model, GTP)
    reduced.to_empty(device="cpu")
    _same_weights(reduced, model)
    reduced.load_state_dict(_model().state_dict())
    torch.testing.assert_close(reduced(_images()), tr.wrap(_model(), GTP)(_images()))


def _deepcopy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module)


def _pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))  # type: ignore[no-any-return]


def _saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("copied", [_deepcopy, _pickled, _saved])
@pytest.mark.parametrize("strategy", [GTP, LEARNED], ids=["gtp", "learned"])
def test_copies(copied: Callable[[Any], Any], strategy: tr.Strategy) -> None:
    reduced = tr.wrap(_model(), strategy)
    expected = reduced(_images())
    twin = copied(reduced)
    assert torch.equal(twin(_images()), expected)
    # The copy shares with its own base, and nothing with the original.
    assert twin.base is not reduced.base
    assert set(twin.state_dict()) == set(reduced.state_dict())
    inner = dict(twin.base.named_parameters())
    outer = dict(twin.named_parameters())
    assert all(inner[name] is outer[name] for name in inner)
    for p in twin.parameters():
        p.data.zero_()
    assert torch.equal(reduced(_images()), expected)
    assert not torch.equal(twin(_images()), expected)


def test_weights_are_saved_alone() -> None:
    file = io.BytesIO()
    reduced = tr.wrap(_model(), GTP)
    torch.save(reduced.state_dict(), file)
    file.seek(0)
    dense = _model()
    dense.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(dense(_images()), reduced.base(_images()), rtol=0, atol=0)


# ---------------------------------------------------------------- to the rest of the world


@pytest.mark.parametrize("through", ["reduced", "base"])
def test_reset_classifier(through: str) -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    (reduced if through == "reduced" else model).reset_classifier(7)
    assert reduced.head is model.head
    assert reduced(_images()).shape == model(_images()).shape == (2, 7)
    assert reduced.state_dict()["head.weight"].shape == (7, 32)
    assert any(p is model.head.weight for p in reduced.parameters())


def test_assigning_reaches_the_base() -> None:
    model = _model()
    reduced = tr.wrap(model, GTP)
    reduced.head = nn.Linear(32, 9)
    reduced.cls_token = nn.Parameter(torch.ones(1, 1, 32))
    reduced.grad_checkpointing = True
    assert model.head.out_features == 9
    assert bool((model.cls_token == 1).all())
    assert model.grad_checkpointing
    _same_weights(reduced, model)
    reduced.note = "mine"
    assert not hasattr(model, "note")
    with pytest.raises(AttributeError, match=r"ReducedViT.*no attribute 'nothing'"):
        _ = reduced.nothing


def test_functional_call_reaches_every_parameter() -> None:
    reduced = tr.wrap(_model(), GTP)
    weights = {k: torch.randn_like(v) * 0.2 for k, v in reduced.named_parameters()}
    other = _model()
    other.load_state_dict(weights)
    expected = tr.wrap(other, GTP)(_images())
    got = torch.func.functional_call(reduced, weights, (_images(),))
    torch.testing.assert_close(got, expected)


def test_timm_finds_what_it_looks_for() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    reduced = tr.wrap(model, GTP)
    assert resolve_model_data_config(reduced) == resolve_model_data_config(model)
    assert reduced.num_classes == 3
    assert reduced.no_weight_decay() == model.no_weight_decay()
    assert reduced.get_classifier() is model.head
    assert {"blocks", "forward_head", "run_with_trace"} <= set(dir(reduced))


def test_with_strategy_and_wrapping_again() -> None:
    model = _model()
    first = tr.wrap(model, GTP, engine="plain", check_finite=True)
    for second in (first.with_strategy("topk"), tr.wrap(first, "topk")):
        assert second.base is model
        _same_weights(second, model)
        assert second.strategy == tr.strategy("topk")
        expected = tr.wrap(model, "topk")(_images())
        torch.testing.assert_close(second(_images()), expected)
    assert first.with_strategy(GTP).check_finite
    assert first.strategy == GTP


def test_repr_has_the_layers() -> None:
    text = repr(tr.wrap(_model(), GTP))
    assert "MixedAttn" in text
    assert "Propagate" in text
    for row in (["0", "16", "2", "14"], ["1", "14", "2", "12"], ["2", "12", "2", "10"]):
        assert any(line.split()[:4] == row for line in text.splitlines())
    assert "GMACs" in text
