"""The stages of ``gpu.py``: each yields what identifies a figure and the function that measures it.

Nothing is built before a figure that needs it is measured, so that going through the figures of a
stage costs nothing.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import engines
import gpu_models
import timm
import torch
import torch.nn.functional as F
from gpu_journal import Row
from gpu_models import BF16, CUDA, Figures
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import tokenred as tr
from tokenred.analysis.measure.timing import Clock
from tokenred.attention import AttentionSpec
from tokenred.core.tensors import unit_vectors
from tokenred.graphs.semantic import most_similar

CHECKOUT = Path(__file__).parents[1]
OUT = Path()  # set by gpu.py
# Files in tests/ with tests that are skipped without a GPU.
TESTS = (
    "tests/attention/triton/test_on_gpu.py",
    "tests/reduced/test_static_graphs.py",
    "tests/analysis/measure/test_machine.py",
)


@dataclass(frozen=True)
class Stage:
    """Some figures of one kind.

    Attributes:
        weight: its share of the time that is left, relative to the later stages.
        limit: seconds after which a figure counts as unanswered.
        least: seconds that must be left for another figure to begin.
        shows: which rows the summary lists.
    """

    name: str
    title: str
    figures: Callable[[], Figures]
    weight: float
    limit: float = 60
    least: float = 2
    shows: Callable[[Row], bool] = lambda row: True


def environment() -> Row:
    """The GPU, the versions, and which of tokenred's dependencies are missing."""
    digest = hashlib.sha256()
    for path in sorted([*CHECKOUT.glob("tokenred/**/*.py"), *CHECKOUT.glob("benchmarks/*.py")]):
        digest.update(path.read_bytes())
    properties = torch.cuda.get_device_properties(CUDA)
    versions = {name: _version(name) for name in ("torch", "triton", "timm", "numpy")}
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "gib": round(properties.total_memory / 2**30),
        "python": sys.version.split()[0],
        **versions,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "missing": ", ".join(name for name in _required() if _version(name) is None),
        "code": digest.hexdigest()[:16],
    }


def _required() -> list[str]:
    """Names of the packages in ``dependencies`` of pyproject.toml."""
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    names = re.findall(r'"([\w.-]+)[^"]*"', listed)
    return [name for name in names if not (name == "tomli" and sys.version_info >= (3, 11))]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _environment() -> Figures:
    yield {}, environment


def _choices() -> Figures:
    """Which kernel PyTorch chooses for dense attention, and with a bias on the keys."""
    for dtype in ("bfloat16", "float16", "float32"):
        for width in (64, 72, 80):
            yield {"dtype": dtype, "width": width}, partial(_choice, dtype, width)


def _choice(dtype: str, width: int) -> Row:
    q = torch.zeros(2, 3, 197, width, device=CUDA, dtype=getattr(torch, dtype))
    names = {int(backend): name.lower() for name, backend in SDPBackend.__members__.items()}
    masks = {"dense": None, "key_bias": q.new_zeros(2, 1, 1, 197)}
    return {name: names.get(torch._fused_sdp_choice(q, q, q, mask)) for name, mask in masks.items()}


def _tests() -> Figures:
    for path in TESTS:
        yield {"tests": path}, partial(_test, path)


def _test(path: str) -> Row:
    """Their outcome; the whole output goes to a file."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--maxfail=20",
               "-o", "filterwarnings=default", "-p", "no:cacheprovider", path]  # fmt: skip
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(12, len(os.sched_getaffinity(0))))]
    with (OUT / f"{Path(path).stem}.txt").open("w", encoding="utf-8") as file:
        done = subprocess.run(command, cwd=CHECKOUT, stdout=file, stderr=subprocess.STDOUT)
    lines = Path(file.name).read_text(encoding="utf-8").strip().splitlines()
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    found = {"passed": done.returncode == 0, "said": lines[-1] if lines else ""}
    return found if done.returncode == 0 else {**found, "error": "; ".join(failed)[:400]}


def _recipes() -> Figures:
    for qk_norm in (False, True):
        for precision in ("fp32", "amp"):
            for name in tr.list_strategies():
                key = {"recipe": name, "precision": precision, "qk_norm": qk_norm}
                yield key, partial(_recipe, name, precision, qk_norm)


def _recipe(name: str, precision: str, qk_norm: bool) -> Row:
    """The difference of the logits from those of the plain engine on the CPU in fp32.

    ``waits`` counts how often the host waits for the GPU, which only methods whose token counts
    depend on the image may do.
    """
    images, expected, state = _on_cpu(name, qk_norm)
    model = _seeded(_base(qk_norm, "cuda"), name, "auto")
    model.load_state_dict(state)
    there = images.to(CUDA)
    amp: AbstractContextManager[Any] = nullcontext()
    if precision == "amp":
        amp = torch.autocast("cuda", BF16)
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad(), amp, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model(there)
        seen.clear()
        torch.cuda.set_sync_debug_mode("warn")
        out = model(there)
        torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchronizing" in str(one.message) for one in seen)
    off = float((out.float().cpu() - expected).abs().max() / expected.abs().max())
    steps, depth = model.strategy.steps, len(model.backbone.blocks)
    may_wait = any(step.adaptive(layer, depth) for step in steps for layer in range(depth))
    close = off < (1e-3 if precision == "fp32" else 0.1)
    return {"off": off, "waits": waits, "ok": close and (may_wait or waits == 0)}


@cache
def _on_cpu(name: str, qk_norm: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    model = _seeded(_base(qk_norm, "cpu"), name, "plain")
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images, model(images), model.state_dict()


@cache
def _base(qk_norm: bool, device: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", depth=6, qk_norm=qk_norm).eval()
    return copy.deepcopy(model).to(device)


def _seeded(model: nn.Module, name: str, engine: str) -> tr.ReducedViT:
    torch.manual_seed(1)  # parts with weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tr.wrap(model, name, engine=engine)


SHAPES = (
    "256x12x197x64", "64x12x785x64", "196x12x257x64", "87x12x577x64", "37x12x1370x64",
    "16x12x3137x64", "128x16x257x72", "128x16x257x80",
)  # fmt: skip
BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
# Maps larger than this are left to the engines that do not hold them.
_HELD = 1 << 30


def _attention() -> Figures:
    for theta, find in ((1.0, ""), (0.6, "fast"), (0.6, "exact")):
        for shape in SHAPES:
            b, h, n, _ = engines.shape_of(shape)
            for engine in [name for name in engines.ENGINES if name != "tiled"]:
                holds = engine == "plain" or (engine == "two_calls" and theta < 1)
                if not holds or b * h * n * n < _HELD:
                    key = {"shape": shape, "theta": theta, "find": find, "engine": engine}
                    yield key, partial(_engine, **key)
    for shape in SHAPES:
        for name in ("key bias", *BACKENDS):
            key = {"shape": shape, "theta": 1.0, "find": "", "engine": f"dense, {name}"}
            yield key, partial(_dense_attention, shape, name)


def _engine(shape: str, theta: float, find: str, engine: str) -> Row:
    """GTP's statistics from an engine, beside dense attention."""
    qkv, bias, state = engines.block(engines.shape_of(shape), BF16, "cuda", biased=True)
    spec = AttentionSpec(engines.NEEDS["gtp"], bias, theta, find or "exact")
    if not engines.ENGINES[engine].supports(qkv, spec):
        return {"supported": False}
    run = engines.runner(engines.ENGINES[engine], qkv, spec, state, compiled=False)
    return _beside_dense(run, qkv)


def _dense_attention(shape: str, name: str) -> Row:
    """PyTorch's attention with a bias on the keys, or by one of its kernels."""
    qkv, bias, _ = engines.block(engines.shape_of(shape), BF16, "cuda", biased=True)
    mask = bias.to(BF16)[:, None, None] if name == "key bias" and bias is not None else None

    def run(q: Tensor) -> Tensor:
        if mask is not None:
            return F.scaled_dot_product_attention(q, qkv.k, qkv.v, mask)
        with sdpa_kernel(SDPBackend.__members__[name]):
            return F.scaled_dot_product_attention(q, qkv.k, qkv.v)

    return _beside_dense(run, qkv)


def _beside_dense(run: engines.Run, qkv: Any) -> Row:
    def dense(q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, qkv.k, qkv.v, scale=qkv.scale)

    with torch.inference_mode():
        clock = Clock(CUDA)
        return dict(engines.measure({"": run}, dense, qkv.q, clock, 9, 2))[""]


def _graphs() -> Figures:
    for b, n, c in ((256, 196, 768), (64, 784, 768), (16, 3136, 768)):
        for kernel in (False, True):
            yield {"images": b, "tokens": n, "kernel": kernel}, partial(_graph, b, n, c, kernel)


def _graph(b: int, n: int, c: int, kernel: bool) -> Row:
    """The eight most similar tokens of each, by PyTorch's operations or by a kernel."""
    from tokenred.attention.triton.nearest import nearest

    def find(x: Tensor) -> Tensor:
        found: Tensor = nearest(unit_vectors(x), 8) if kernel else most_similar(x, 8)
        return found

    x, clock = torch.randn(b, n, c, device=CUDA, dtype=BF16), Clock(CUDA)
    with torch.inference_mode():
        times = [clock(find, x) for _ in range(7)]
        return {"ms": 1e3 * statistics.median(times[2:]), "peak_mib": engines.peak_mib(find, x)}


STAGES = (
    Stage("environment", "Environment", _environment, 1),
    Stage("sdpa", "PyTorch's choice of attention kernels", _choices, 1),
    Stage("recipes", "Recipes against the plain engine on the CPU", _recipes, 16,
          shows=lambda row: not row.get("ok")),
    Stage("models", "Models, bfloat16", gpu_models.models, 26),
    Stage("attention", "Attention with statistics ÷ dense attention, bfloat16", _attention, 12),
    Stage("tests", "Tests that need a GPU", _tests, 16, limit=110, least=20),
    Stage("graphs", "Neighbours of tokens", _graphs, 3),
    Stage("training", "Training steps", gpu_models.training, 6),
    Stage("compiled", "Compiled models, bfloat16", gpu_models.compiled, 24, limit=240, least=30),
)  # fmt: skip
