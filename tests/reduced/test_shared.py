"""One model as two objects: one set of weights, and whoever changes a child changes what runs."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import FAMILIES, answer, images_for, vit
from tokenred.core.info import ModelInfo
from tokenred.models.rebuild import weightless

GTP = tr.strategy("gtp", P=2, M=3)
pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


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
BOTH = pytest.mark.parametrize("strategy", [GTP, LEARNED], ids=["gtp", "learned"])


def _pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))  # type: ignore[no-any-return]


def _saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


COPIES = pytest.mark.parametrize("copied", [copy.deepcopy, _pickled, _saved])


def _same_weights(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    assert ours
    assert list(ours) == list(theirs)
    assert all(ours[name] is theirs[name] for name in ours)


# ---------------------------------------------------------------- weights


def test_the_base_is_left_alone() -> None:
    model = vit(reg_tokens=1)
    images, kind, keys = images_for(model), type(model), set(vars(model))
    before = model(images)
    reduced = tr.wrap(model, GTP)
    assert not torch.equal(reduced(images), before)
    reduced.run_with_trace(images)
    assert torch.equal(model(images), before)
    assert type(model) is kind
    assert set(vars(model)) == keys
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert list(reduced.state_dict()) == list(model.state_dict())
    assert [n for n, _ in reduced.named_modules()] == [n for n, _ in model.named_modules()]
    _same_weights(reduced, model)


def test_learned_parts_have_their_own_keys() -> None:
    model = vit()
    with pytest.warns(tr.errors.UntrainedPartWarning, match="selector of .*are untrained"):
        reduced = tr.wrap(model, LEARNED)
    own = {"parts.selector.scorer.weigh.weight", "parts.selector.scorer.weigh.bias"}
    assert set(reduced.state_dict()) == set(model.state_dict()) | own
    assert own.isdisjoint(model.state_dict())
    assert reduced.cost().learned == 1e9
    assert tr.gmacs(reduced) > 1
    reduced.train()(images_for(model)).sum().backward()
    judge = reduced.parts["selector"].scorer
    assert judge.seen_training is True
    reduced.eval()(images_for(model))
    assert judge.seen_training is False
    assert reduced.double().parts["selector"].scorer.weigh.weight.dtype == torch.float64
    assert reduced(images_for(model)).dtype == torch.float64


@BOTH
@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict(strategy: tr.Strategy, assign: bool) -> None:
    source, model = tr.wrap(vit(), strategy), vit()
    for p in source.parameters():
        p.data.normal_(0, 0.2)
    reduced, images = tr.wrap(model, strategy), images_for(model)
    reduced.load_state_dict(source.state_dict(), assign=assign)
    torch.testing.assert_close(reduced(images), source(images), rtol=0, atol=0)
    torch.testing.assert_close(model(images), source.base(images), rtol=0, atol=0)
    # Into the base, too.
    base = {k: torch.randn_like(v) * 0.2 for k, v in model.state_dict().items()}
    model.load_state_dict(base, assign=assign)
    for name, value in base.items():
        assert torch.equal(reduced.state_dict()[name], value)


def test_mode_and_dtype_are_common() -> None:
    model = vit()
    reduced = tr.wrap(model, GTP)
    assert not reduced.training
    reduced.train()
    assert all(m.training for m in [*reduced.modules(), *model.modules()])
    assert tr.wrap(model, GTP).training
    reduced.eval()
    assert not any(m.training for m in [*reduced.modules(), *model.modules()])
    reduced.to(torch.float64)
    _same_weights(reduced, model)
    model.to(torch.bfloat16)
    _same_weights(reduced, model)
    assert reduced(images_for(model)).dtype == torch.bfloat16
    reduced.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())


def test_to_empty_replaces_the_parameters_of_both() -> None:
    with weightless():
        model = FAMILIES["vit"]().eval()
    reduced, other = tr.wrap(model, GTP), FAMILIES["vit"]().eval()
    reduced.to_empty(device="cpu")
    _same_weights(reduced, model)
    reduced.load_state_dict(other.state_dict())
    torch.testing.assert_close(reduced(images_for(model)), tr.wrap(other, GTP)(images_for(model)))


@COPIES
@BOTH
def test_a_copy_is_a_model_of_its_own(copied: Callable[[Any], Any], strategy: tr.Strategy) -> None:
    reduced = tr.wrap(vit(), strategy)
    images = images_for(reduced)
    expected = reduced(images)
    twin = copied(reduced)
    assert torch.equal(twin(images), expected)
    # The copy shares with its own base, and nothing with the original.
    assert twin.base is not reduced.base
    assert set(twin.state_dict()) == set(reduced.state_dict())
    inner, outer = dict(twin.base.named_parameters()), dict(twin.named_parameters())
    assert all(inner[name] is outer[name] for name in inner)
    del twin.base.blocks[2:]
    twin._modules["head"] = _new_head()
    assert twin(images).shape == (2, 3)
    assert torch.equal(reduced(images), expected)


# ---------------------------------------------------------------- children, in a parent


class Task(nn.Module):
    """What holds a model in any training framework."""

    def __init__(self, family: str = "vit", seed: int = 0, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = tr.wrap(FAMILIES[family]().eval(), GTP)
        if classes != 5:
            self.model.reset_classifier(classes)

    def forward(self, images: Tensor) -> Tensor:
        return answer(self.model(images))


def _runs_what_it_holds(reduced: Any) -> None:
    base = reduced.base
    _same_weights(reduced, base)
    assert dict(reduced.named_children()) == dict(base.named_children())
    assert list(reduced.state_dict()) == list(base.state_dict())
    with torch.no_grad():
        expected = answer(tr.wrap(base, GTP)(images_for(base)))
        assert torch.equal(answer(reduced(images_for(base))), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("assign", [False, True])
def test_a_parent_loads_into_what_runs(family: str, assign: bool) -> None:
    classes = 7 if family == "vit" else 5
    trained, fresh = (Task(family, seed, classes).eval() for seed in (0, 1))
    for p in trained.parameters():
        nn.init.normal_(p, std=0.1)
    fresh.load_state_dict(trained.state_dict(), assign=assign)
    images = images_for(trained.model)
    with torch.no_grad():
        assert torch.equal(fresh(images), trained(images))
    _runs_what_it_holds(fresh.model)


def _new_head() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(32, 3)


def _deleted_and_set(task: Any, head: nn.Module) -> None:
    del task.model.head
    task.model.head = head


SWAPS: dict[str, Callable[[Any, nn.Module], None]] = {
    "on the view": lambda task, head: setattr(task.model, "head", head),
    "on the base": lambda task, head: setattr(task.model.base, "head", head),
    "in the view's dictionary": lambda task, head: task.model._modules.update(head=head),
    "in the base's dictionary": lambda task, head: task.model.base._modules.update(head=head),
    "set_submodule": lambda task, head: task.set_submodule("model.head", head),
    "add_module": lambda task, head: task.model.add_module("head", head),
    "deleted and set": _deleted_and_set,
}


@pytest.mark.parametrize("swap", SWAPS)
def test_a_child_swapped_anywhere_runs(swap: str) -> None:
    task = Task()
    task(images_for(task.model))
    head = _new_head()
    SWAPS[swap](task, head)
    assert task.model.head is head
    assert task(images_for(task.model)).shape == (2, 3)
    assert task.model.base.head is head
    assert any(p is head.weight for p in task.parameters())
    _runs_what_it_holds(task.model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of PyTorch's
@pytest.mark.parametrize("what", ["parent", "view", "base"])
def test_quantised_linears_run(what: str) -> None:
    quantise = torch.ao.quantization.quantize_dynamic
    task = Task()
    images = images_for(task.model)
    with torch.no_grad():
        before = task(images)
        target: Any = {"parent": task, "view": task.model, "base": task.model.base}[what]
        quantise(target, {nn.Linear}, dtype=torch.qint8, inplace=True)
        after = task(images)
    kinds = {type(m).__module__ for n, m in task.model.base.named_modules() if n.endswith("fc1")}
    assert all("quantized" in kind for kind in kinds)
    assert "quantized" in type(task.model.base.head).__module__
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, before, atol=0.3, rtol=0.3)


class LoRA(nn.Module):
    """What a LoRA library puts in the place of a linear layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Linear(inner.in_features, 2, bias=False)
        self.up = nn.Linear(2, inner.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) + self.up(self.down(x))
        return out


@pytest.mark.parametrize("name", ["qkv", "head"])
def test_adapters_in_the_place_of_linears_run(name: str) -> None:
    task = Task()
    images = images_for(task.model)
    before = task(images)
    for path, module in list(task.named_modules()):
        if path.split(".")[-1] == name and isinstance(module, nn.Linear):
            parent, _, child = path.rpartition(".")
            setattr(task.get_submodule(parent), child, LoRA(module))
    assert not torch.equal(task(images), before)
    _runs_what_it_holds(task.model)
    task(images).sum().backward()
    tuned = [p for n, p in task.named_parameters() if ".up." in n]
    assert tuned
    assert all(p.grad is not None for p in tuned)


def test_attributes_of_the_base_and_of_the_view_alone() -> None:
    model = vit()
    reduced = tr.wrap(model, GTP)
    reduced.cls_token = nn.Parameter(torch.ones(1, 1, 32))
    reduced.grad_checkpointing = True
    assert bool((model.cls_token == 1).all())
    assert model.grad_checkpointing
    _same_weights(reduced, model)
    reduced.note, reduced.probe = "mine", nn.Linear(2, 2)
    assert not hasattr(model, "note")
    assert "probe" not in dict(model.named_children())
    assert "probe.weight" in reduced.state_dict()
    (reduced if reduced.training else model).reset_classifier(3)
    assert [n for n, _ in reduced.named_children()][-1] == "probe"
    del reduced.probe
    assert not hasattr(reduced, "probe")
    with pytest.raises(AttributeError, match=r"ReducedViT.*no attribute 'nothing'"):
        _ = reduced.nothing


def test_several_views_of_one_model() -> None:
    one = tr.wrap(FAMILIES["vit"]().eval(), GTP)
    other = one.with_strategy(tr.strategy("topk", layers=(1,), keep_rate=0.5))
    one._modules["head"] = _new_head()
    assert one(images_for(one)).shape == (2, 3)
    assert other(images_for(one)).shape == (2, 3)
    other.head = nn.Linear(32, 4)
    assert one(images_for(one)).shape == (2, 4)
