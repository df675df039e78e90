"""The kernels compile for GPUs that need not be there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenred.attention.triton.launch import blocks_for, padded

triton = pytest.importorskip(
    "triton", minversion="3.3", reason="needs Triton, which comes with PyTorch for CUDA"
)
if "nvidia" not in importlib.import_module("triton.backends").backends:
    pytest.skip("needs Triton with its backend for NVIDIA", allow_module_level=True)

# Each kernel, with the constants that take it through all of its branches.
KERNELS: list[tuple[str, dict[str, Any]]] = [
    ("forward", {"SPARSE": False}),
    ("forward", {"SPARSE": True}),
    ("statistics", {"SPARSE": True, "COLUMNS": True, "DIAGONAL": True}),
    ("threshold", {}),
]
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}


def compiled(
    name: str, more: dict[str, Any], dtype: torch.dtype, width: int, capability: int
) -> Any:
    kernel = getattr(importlib.import_module(f"tokenred.attention.triton.{name}"), f"_{name}")
    blocks = blocks_for(width, dtype)
    constants = {
        "WIDTH": width, "PADDED": padded(width), "ROWS": blocks.rows, "COLS": blocks.cols,
        "HAS_BIAS": True, "UPCAST": False, **more,
    }  # fmt: skip
    signature = {}
    for at in kernel.params:
        if at.is_constexpr:
            signature[at.name] = "constexpr"
        elif at.name in ("q_ptr", "k_ptr", "v_ptr", "out_ptr"):
            signature[at.name] = TYPES[dtype]
        elif at.name == "cut_ptr":
            signature[at.name] = "*i32"
        else:
            signature[at.name] = "*fp32" if at.name.endswith("_ptr") else "i32"
    signature["scale"] = "fp32"
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    return triton.compile(
        ASTSource(kernel, signature, constants),
        target=GPUTarget("cuda", capability, 32),
        options={
            "num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": True
        },
    )  # fmt: skip


@pytest.mark.parametrize(("name", "more"), KERNELS, ids=str)
@pytest.mark.parametrize(
    ("dtype", "width", "capability"),
    [(torch.bfloat16, 64, 90), pytest.param(torch.float32, 80, 80, marks=pytest.mark.slow)],
)
def test_compiles(
    name: str,
    more: dict[str, Any],
    dtype: torch.dtype,
    width: int,
    capability: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = compiled(name, more, dtype, width, capability)
    # A block of threads has 99 KiB of shared memory on compute capability 8.6 and 8.9.
    assert done.metadata.shared <= 99 * 1024
    assert "mma" in done.asm["ptx"]  # the tensor cores
    assert done.asm["cubin"]
