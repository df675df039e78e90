"""Costs by the shapes of weights, whatever the class of a layer."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import vit
from tokenred.backbones.linear_cost import linear_macs

RANK = 2


class LookAlike(nn.Module):
    """A matrix of its own and nothing else."""

    def __init__(self, old: nn.Linear) -> None:
        super().__init__()
        self.weight = old.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Packed(nn.Module):
    """Two values in a byte, as 4-bit layers have them: the shape says nothing, the widths do."""

    def __init__(self, old: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = old.in_features, old.out_features
        packed = torch.zeros(old.weight.numel() // 2, 1, dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.out_features)


class Peft(nn.Module):
    """LoRA as peft lays it out: the old layer, and two dictionaries of layers."""

    def __init__(self, old: nn.Linear) -> None:
        super().__init__()
        self.base_layer = old
        self.in_features, self.out_features = old.in_features, old.out_features
        self.lora_A = nn.ModuleDict({"default": nn.Linear(old.in_features, RANK, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(RANK, old.out_features, bias=False)})

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.lora_B["default"](self.lora_A["default"](x))
        return self.base_layer(x) + added


class Matrices(nn.Module):
    """LoRA as matrices around a layer."""

    def __init__(self, old: nn.Linear) -> None:
        super().__init__()
        self.linear = old
        self.a = nn.Parameter(torch.zeros(RANK, old.in_features))
        self.b = nn.Parameter(torch.zeros(old.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.a.T @ self.b.T


class LoraLib(nn.Linear):
    """LoRA as matrices in a subclass."""

    def __init__(self, old: nn.Linear) -> None:
        super().__init__(old.in_features, old.out_features)
        self.lora_A = nn.Parameter(torch.zeros(RANK, old.in_features))
        self.lora_B = nn.Parameter(torch.zeros(old.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.lora_A.T @ self.lora_B.T


def _swap(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, make(child))
    return model


@pytest.mark.parametrize("make", [LookAlike, Packed, Peft, Matrices, LoraLib])
@pytest.mark.parametrize("when", ["before", "after"])
def test_layers_of_other_classes(make: Any, when: str) -> None:
    base, plain = vit(img_size=32), tr.wrap(vit(img_size=32), tr.strategy("gtp", P=2, M=3))
    swapped = copy.deepcopy(base)
    expected = plain.cost()
    if make not in (LookAlike, Packed):
        old = nn.Linear(32, 96)
        assert linear_macs(make(old)) == 32 * 96 + RANK * (32 + 96)
    else:
        assert linear_macs(make(nn.Linear(32, 96))) == 32 * 96
    if when == "before":
        fast = tr.wrap(_swap(swapped, make), plain.strategy)
    else:
        fast = tr.wrap(swapped, plain.strategy)
        _swap(swapped, make)
    fast(torch.zeros(1, 3, 32, 32))
    more = fast.cost()
    assert more.layers[0].macs >= expected.layers[0].macs
    assert (more.layers[0].macs == expected.layers[0].macs) is (make in (LookAlike, Packed))
    assert (more.head == expected.head) is (make in (LookAlike, Packed))
    assert tr.gmacs(fast.base) == pytest.approx(tr.gmacs(swapped))


@pytest.mark.filterwarnings("ignore")
def test_int8() -> None:
    quantize = torch.ao.quantization.quantize_dynamic
    int8 = quantize(vit(img_size=32), {nn.Linear}, dtype=torch.qint8)
    assert tr.gmacs(int8) == tr.gmacs(vit(img_size=32))
    strategy = tr.strategy("gtp", M=3).replace(schedule=tr.Budget(0.7 * tr.gmacs(vit(img_size=32))))
    images = torch.zeros(1, 3, 32, 32)
    counts = [
        tr.wrap(m, strategy).run_with_trace(images)[1].tokens_per_layer
        for m in (int8, vit(img_size=32))
    ]
    assert counts[0] == counts[1]
    assert counts[0][-1] < 16


def test_weights_that_are_no_matrix() -> None:
    class Tensor3(nn.Module):
        def __init__(self, old: nn.Linear) -> None:
            super().__init__()
            self.core = nn.Parameter(torch.zeros(2, 16, 8))

    model = vit(img_size=32)
    model.blocks[1].mlp.fc1 = Tensor3(model.blocks[1].mlp.fc1)
    with pytest.raises(tr.errors.BackboneError, match=r"fc1 \(Tensor3\).*in_features"):
        tr.wrap(model, "topk")
