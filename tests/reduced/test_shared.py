"""One model as two objects: whoever changes a child, and wherever, changes what runs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import FAMILIES, answer, images_for
from tokenred.core.errors import BackboneError

GTP = tr.strategy("gtp", P=2, M=3)


class Task(nn.Module):
    """What holds a model in any training framework."""

    def __init__(self, family: str = "vit", seed: int = 0, classes: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = tr.wrap(FAMILIES[family]().eval(), GTP)
        if classes is not None:
            self.model.reset_classifier(classes)

    def forward(self, images: Tensor) -> Tensor:
        return answer(self.model(images))


def _runs_what_it_holds(reduced: Any) -> None:
    base = reduced.base
    assert list(reduced.named_parameters()) == list(base.named_parameters())
    assert dict(reduced.named_children()) == dict(base.named_children())
    assert list(reduced.state_dict()) == list(base.state_dict())
    with torch.no_grad():
        expected = answer(tr.wrap(base, GTP)(images_for(base)))
        assert torch.equal(answer(reduced(images_for(base))), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_parent_loads_into_what_runs(family: str) -> None:
    trained, fresh = Task(family, 0).eval(), Task(family, 1).eval()
    for p in trained.parameters():
        nn.init.normal_(p, std=0.1)
    fresh.load_state_dict(trained.state_dict())
    images = images_for(trained.model)
    with torch.no_grad():
        assert torch.equal(fresh(images), trained(images))
    _runs_what_it_holds(fresh.model)


@pytest.mark.parametrize("assign", [False, True])
def test_a_parent_loads_another_classifier(assign: bool) -> None:
    trained, fresh = Task(classes=7).eval(), Task(seed=1, classes=7).eval()
    fresh.load_state_dict(trained.state_dict(), assign=assign)
    images = images_for(trained.model)
    with torch.no_grad():
        assert torch.equal(fresh(images), trained(images))
    assert fresh(images).shape == (2, 7)
    _runs_what_it_holds(fresh.model)


def _new_head() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(32, 3)


SWAPS: dict[str, Callable[[Any, nn.Module], None]] = {
    "on the view": lambda task, head: setattr(task.model, "head", head),
    "on the base": lambda task, head: setattr(task.model.base, "head", head),
    "in the view's dictionary": lambda task, head: task.model._modules.update(head=head),
    "in the base's dictionary": lambda task, head: task.model.base._modules.update(head=head),
    "set_submodule": lambda task, head: task.set_submodule("model.head", head),
    "add_module": lambda task, head: task.model.add_module("head", head),
    "deleted and set": lambda task, head: (
        delattr(task.model, "head"),
        setattr(task.model, "head", head),
    )[1],
}


@pytest.mark.parametrize("swap", SWAPS)
def test_a_child_swapped_anywhere_runs(swap: str) -> None:
    task = Task()
    task(images_for(task.model))
    head = _new_head()
    SWAPS[swap](task, head)
    assert task.model.head is head
    assert task.model.base.head is head or swap == "in the view's dictionary"
    assert task(images_for(task.model)).shape == (2, 3)
    assert task.model.base.head is head
    assert any(p is head.weight for p in task.parameters())
    _runs_what_it_holds(task.model)


@pytest.mark.parametrize("seen", ["parameters", "state_dict", "children", "apply", "forward"])
def test_every_way_in_sees_it(seen: str) -> None:
    task = Task()
    head = _new_head()
    task.model._modules["head"] = head
    if seen == "parameters":
        assert any(p is head.bias for p in task.model.base.parameters()) or any(
            p is head.bias for p in task.parameters()
        )
    elif seen == "state_dict":
        assert task.state_dict()["model.head.bias"].shape == (3,)
    elif seen == "children":
        assert head in list(task.model.children())
    elif seen == "apply":
        task.apply(lambda m: nn.init.ones_(m.bias) if isinstance(m, nn.Linear) else None)
        assert bool((head.bias == 1).all())
    task(images_for(task.model))
    assert task.model.base.head is head


def test_a_parent_s_apply_and_to_reach_what_runs() -> None:
    task = Task()
    task.model.base.head = _new_head()
    task.apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)
    assert bool((task.model.base.head.weight == 0).all())
    task.model.base.head = _new_head()
    task.double()
    assert task(images_for(task.model).double()).dtype == torch.float64
    task.model.base.head = nn.Sequential(nn.Dropout(), _new_head().double())
    assert task.train().model.base.head[0].training
    assert not task.eval().model.base.head[0].training


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


@pytest.mark.parametrize("name", ["qkv", "proj", "fc1", "head"])
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


def test_changed_on_both() -> None:
    task = Task()
    task.model._modules["head"] = _new_head()
    task.model.base.head = nn.Linear(32, 4)
    for use in (task.model, lambda x: task.state_dict(), lambda x: task.model.head):
        with pytest.raises(BackboneError, match="'head' was changed both on the ReducedViT and"):
            use(images_for(task.model.base))
    assert task.model.base.head.out_features == 4
    task.model.base._modules["head"] = task.model._modules["head"]
    assert task(images_for(task.model)).shape == (2, 3)


def test_children_of_the_view_alone_stay_there() -> None:
    model = tr.wrap(FAMILIES["vit"]().eval(), GTP)
    model.probe = nn.Linear(2, 2)
    assert "probe" not in dict(model.base.named_children())
    assert "probe.weight" in model.state_dict()
    model.reset_classifier(3)
    assert [n for n, _ in model.named_children()][-1] == "probe"
    del model.probe
    assert not hasattr(model, "probe")


def test_several_views_of_one_model() -> None:
    one = tr.wrap(FAMILIES["vit"]().eval(), GTP)
    other = one.with_strategy(tr.strategy("topk", layers=(1,), keep_rate=0.5))
    one._modules["head"] = _new_head()
    assert one(images_for(one)).shape == (2, 3)
    assert other(images_for(one)).shape == (2, 3)
    other.head = nn.Linear(32, 4)
    assert one(images_for(one)).shape == (2, 4)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copied_parent(copied: Callable[[Any], Any]) -> None:
    task = copied(Task())
    task.model._modules["head"] = _new_head()
    assert task(images_for(task.model)).shape == (2, 3)
    _runs_what_it_holds(task.model)
