"""Tensors on a GPU that need not be there: shapes, types and devices, no numbers.

They show what a GPU would: operands on different devices, a host that waits, a fused attention
that is given two types.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["fake_gpu", "to_fake_gpu"]

# The host needs a number from the device for these.
_WAITS = (
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "is_nonzero",
    "repeat_interleave.Tensor", "bincount", "equal.default",
)  # fmt: skip
_FUSED = ("_scaled_dot_product", "tokenred::attention")


class _Watch(TorchDispatchMode):
    """Refuses what a GPU would suffer from."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        assert not any(wait in name for wait in _WAITS), f"{name}: the host waits for the GPU"
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if any(fused in name for fused in _FUSED):
            _check_fused(name, given[:3])
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        devices = {t.device.type for t in (*given, *made)}
        assert len(devices) <= 1, f"{name} copies between {' and '.join(sorted(devices))}"
        return out


def _check_fused(name: str, heads: list[Tensor]) -> None:
    types = {t.dtype for t in heads if t.dim() == 4}
    assert len(types) == 1, f"{name} is given {types}"
    dtype = next(iter(types))
    assert dtype != torch.float64, f"{name} has no kernel for {dtype}"
    modern = torch.cuda.get_device_properties(0).major >= 8
    assert modern or dtype != torch.bfloat16, f"{name} has no kernel for {dtype} on this GPU"


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **more: object,
) -> Tensor:
    """What PyTorch's own choice among its kernels demands, which needs a GPU to be made."""
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    else:
        _check_types(query, key, value, attn_mask)
        dtype = query.dtype
    return query.new_empty(*query.shape[:-1], value.shape[-1], dtype=dtype)


def _check_types(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    assert query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype, value.dtype)
    if mask is not None:
        assert mask.dtype in (torch.bool, query.dtype), (mask.dtype, query.dtype)


@contextmanager
def fake_gpu(
    patch: pytest.MonkeyPatch, *, autocast: torch.dtype | None = None, capability: int = 9
) -> Iterator[None]:
    """A GPU of this compute capability, and mixed precision on it where a type is given."""

    class Properties:
        major, minor, name = capability, 0, "no GPU"

    patch.setattr(torch.cuda, "get_device_properties", lambda device=None: Properties)
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)
    patch.setattr(F, "scaled_dot_product_attention", _attention)
    # `torch.autocast` asks for a GPU; these are what it switches.
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", autocast is not None)
    torch.set_autocast_dtype("cuda", autocast or before[1])
    torch.autocast_increment_nesting()
    try:
        with torch.no_grad(), FakeTensorMode(), _Watch():
            yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def to_fake_gpu(*models: nn.Module, dtype: torch.dtype) -> None:
    """Put parameters and buffers on the GPU, within `fake_gpu`; what models share stays shared."""
    made: dict[Tensor, Tensor] = {}
    for model in models:
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for name, x in held.items():
                    if x is None or x.is_cuda:
                        continue
                    if x not in made:
                        kind = dtype if x.is_floating_point() else x.dtype
                        new = torch.empty(x.shape, dtype=kind, device="cuda")
                        made[x] = nn.Parameter(new) if isinstance(x, nn.Parameter) else new
                    held[name] = made[x]  # type: ignore[assignment]
