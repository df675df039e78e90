"""The kernels compile for GPUs that need not be there."""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenred.attention.triton.launch import (
    MOST_KEYS,
    blocks_for,
    one_pass_blocks,
    padded,
    statistics_blocks,
)

triton = pytest.importorskip(
    "triton", minversion="3.3", reason="needs Triton, which comes with PyTorch for CUDA"
)
if "nvidia" not in importlib.import_module("triton.backends").backends:
    pytest.skip("needs Triton with its backend for NVIDIA", allow_module_level=True)
TOOLS = Path(importlib.import_module("triton.backends.nvidia").__file__ or "").parent / "bin"
if not (TOOLS / "ptxas").exists():
    pytest.skip("needs Triton with ptxas, the assembler of CUDA", allow_module_level=True)

# Each kernel, with the constants that take it through all of its branches.
KERNELS: list[tuple[str, dict[str, Any]]] = [
    ("one_pass", {"COLUMNS": True, "DIAGONAL": True, "ROW": True}),
    ("one_pass", {"COLUMNS": True, "DIAGONAL": True, "ROW": False}),
    ("one_pass", {"COLUMNS": False, "DIAGONAL": False, "ROW": True}),
    ("forward", {"SPARSE": False}),
    ("forward", {"SPARSE": True}),
    ("statistics", {"SPARSE": True, "COLUMNS": True, "DIAGONAL": True}),
    ("threshold", {}),
]
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
CAPABILITIES = (80, 90, 100, 120)
# The types and widths of a head, and the kernel, that are tried by default.
QUICK = {*(("one_pass", 64, each) for each in CAPABILITIES), ("one_pass", 96, 80),
         ("forward", 64, 90), ("statistics", 64, 90), ("threshold", 64, 90)}  # fmt: skip


def build(
    kernel: Any,
    signature: dict[str, str],
    constants: dict[str, Any],
    capability: int,
    **options: int,
) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    # As when launched: rows begin at multiples of 16 bytes.
    even = {
        (place,): [["tt.divisibility", 16]]
        for place, at in enumerate(kernel.params)
        if not at.is_constexpr and at.name.endswith(("_ptr", "_image", "_head", "_row"))
    }
    return triton.compile(
        ASTSource(kernel, signature, constants, even),
        target=GPUTarget("cuda", capability, 32),
        options={**options, "enable_fp_fusion": True},
    )


def compiled(
    name: str, more: dict[str, Any], dtype: torch.dtype, width: int, capability: int
) -> Any:
    kernel = getattr(importlib.import_module(f"tokenred.attention.triton.{name}"), f"_{name}")
    blocks = blocks_for(width, dtype, capability // 10)
    if name == "statistics":
        blocks = statistics_blocks(width, dtype, capability // 10)
    if name == "one_pass":
        keys = MOST_KEYS if padded(width) * dtype.itemsize <= 256 else MOST_KEYS // 2
        blocks = one_pass_blocks(keys, capability // 10)
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
    return build(
        kernel, signature, constants, capability, num_warps=blocks.warps, num_stages=blocks.stages
    )


def reduction(name: str, more: dict[str, Any], dtype: torch.dtype, capability: int) -> Any:
    """A kernel of `tokenred.attention.triton.reduction`, or the one for graphs."""
    file = "nearest" if name == "nearest" else "reduction"
    own = importlib.import_module(f"tokenred.attention.triton.{file}")
    kernel = getattr(own, f"_{name}")
    constants = {**getattr(own, name.upper()), **more}
    of_x = ("x_ptr", "out_ptr")
    places = {
        f"{name}_ptr"
        for name in ("index", "keep", "drop", "slot", "place", "partner", "into", "near")
    }
    signature = {}
    for at in kernel.params:
        if at.is_constexpr:
            signature[at.name] = "constexpr"
        elif at.name in of_x:
            signature[at.name] = TYPES[dtype]
        elif at.name in places:
            signature[at.name] = "*i64"
        else:
            signature[at.name] = "*fp32" if at.name.endswith("_ptr") else "i32"
    if name == "fuse":
        signature["epsilon"] = "fp32"
    return build(kernel, signature, constants, capability, num_warps=4, num_stages=1)


def spilled(ptx: str, folder: Path) -> int:
    """Bytes of registers that a thread keeps in memory, as the assembler says."""
    source = folder / "kernel.ptx"
    source.write_text(ptx, encoding="utf-8")
    arch = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)[0]
    newest = TOOLS / "ptxas-blackwell"  # which older versions of Triton lack
    tool = newest if newest.exists() else TOOLS / "ptxas"
    told = subprocess.run(
        [tool, "-v", f"--gpu-name={arch}", source, "-o", folder / "kernel.cubin"],
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    return sum(int(count) for count in re.findall(r"(\d+) bytes spill stores", told))


def _cases() -> list[Any]:
    """Every kernel, type, width and capability; float32 on each size of shared memory."""
    found = []
    for name, more in KERNELS:
        for dtype, width in ((torch.bfloat16, 64), (torch.bfloat16, 96), (torch.float32, 80)):
            for capability in CAPABILITIES if dtype == torch.bfloat16 else (80, 100):
                quick = dtype == torch.bfloat16 and (name, width, capability) in QUICK
                quick &= name != "one_pass" or all(more.values())
                marks = () if quick else pytest.mark.slow
                found.append(pytest.param(name, more, dtype, width, capability, marks=marks))
    return found


@pytest.mark.parametrize(("name", "more", "dtype", "width", "capability"), _cases())
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
    half = dtype == torch.bfloat16
    # A block of threads has 99 KiB of shared memory on compute capability 8.6, 8.9 and 12.0, and
    # 227 on 9.0 and 10.0, of which some kernels take more for float32.
    small = half or capability in (80, 120)
    assert done.metadata.shared <= (99 if small else 227) * 1024
    assert "mma" in done.asm["ptx"]  # the tensor cores
    assert done.asm["cubin"]
    if half:
        assert spilled(done.asm["ptx"], tmp_path) == 0


FUSE = {"WIDTH": 384, "MOVES": True, "SIZED": True, "UPCAST": False}
REDUCTIONS: list[tuple[str, dict[str, Any], torch.dtype]] = [
    ("select", {"MATCHED": False}, torch.float32),
    ("select", {"MATCHED": True}, torch.float32),
    *(("fuse", {**FUSE, "MEAN": mean, "STAYS": not mean}, dtype)
      for mean in (True, False) for dtype in TYPES),
    *(("nearest", {"WIDTH": 384, "PLACES": places}, torch.float32) for places in (8, 64)),
]  # fmt: skip


@pytest.mark.parametrize(
    "capability",
    [pytest.param(each, marks=() if each == 90 else pytest.mark.slow) for each in CAPABILITIES],
)
@pytest.mark.parametrize(("name", "more", "dtype"), REDUCTIONS)
def test_reductions_compile(
    name: str,
    more: dict[str, Any],
    dtype: torch.dtype,
    capability: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = reduction(name, more, dtype, capability)
    assert done.metadata.shared <= 99 * 1024
    assert spilled(done.asm["ptx"], tmp_path) == 0
