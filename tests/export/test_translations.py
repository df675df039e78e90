"""Our translations against PyTorch, entry by entry, where many entries are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokenred.export.translations import translations

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra tokenred[export]")
pytest.importorskip("onnxscript", reason="needs the extra tokenred[export]")

Outputs = tuple[Tensor, ...]


class Both(nn.Module):
    """Several ways to call an operator, as one graph."""

    def __init__(self, *calls: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, x: Tensor) -> Outputs:
        return tuple(call(x) for call in self.calls)


def _outputs(model: nn.Module, x: Tensor, path: Path) -> Outputs:
    program = torch.export.export(model, (x[:2],), dynamic_shapes=({0: torch.export.Dim("b")},))
    torch.onnx.export(
        program, (), dynamo=True, verbose=False, custom_translation_table=translations()
    ).save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return tuple(torch.from_numpy(value) for value in found)


@pytest.mark.parametrize("size", [1, 7, 785])
def test_sort_is_stable(size: int, tmp_path: Path) -> None:
    model = Both(
        lambda x: x.sort(dim=1, descending=True, stable=True).indices,
        lambda x: x.sort(dim=-1, stable=True).indices,
        lambda x: x.sort(dim=1, descending=True, stable=True).values,
        lambda x: x.transpose(0, 1).sort(dim=0, stable=True).indices,
        lambda x: x.to(torch.int64).sort(dim=1, descending=True, stable=True).indices,
    )
    x = torch.randint(5, (3, size), generator=torch.Generator().manual_seed(0)).float()
    x[0] = 2.0
    x[1, ::2] = -torch.inf
    for got, expected in zip(_outputs(model, x, tmp_path / "m.onnx"), model(x), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("k", [1, 20, 49])
def test_kth_value(k: int, tmp_path: Path) -> None:
    model = Both(
        lambda x: torch.kthvalue(x, k, dim=-1, keepdim=True).values,
        lambda x: torch.kthvalue(x, k, dim=1).values,
        # Which of several equal entries is meant is left open; it has to be one of them.
        lambda x: x.gather(1, torch.kthvalue(x, k, dim=1, keepdim=True).indices),
    )
    x = torch.randint(9, (3, 49), generator=torch.Generator().manual_seed(k)).float()
    for got, expected in zip(_outputs(model, x, tmp_path / "m.onnx"), model(x), strict=True):
        assert torch.equal(got, expected)
