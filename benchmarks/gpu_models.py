"""Whole models on a GPU: inference, training and compiled, for ``gpu.py``."""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import engines
import timm
import torch
import torch.nn.functional as F
from gpu_journal import Row
from published import PublishedToMe
from torch import Tensor, nn

import tokenred as tr
from tokenred.analysis.measure.timing import Clock, no_collection

CUDA, BF16 = torch.device("cuda"), torch.bfloat16
Figures = Iterator[tuple[Mapping[str, Any], Callable[[], Row]]]
"""What identifies a figure, and the function that measures it."""
# Model, batch, image side, strategies with the engines to run them on.
MODELS: tuple[tuple[str, int, int, Mapping[str, tuple[str, ...]]], ...] = (
    ("deit_base_patch16_224", 256, 224, {
        "gtp:P=8": ("auto", "one_pass", "triton"),
        "tome:r=8": ("auto", "plain", "published"),
        "evit:keep_rate=0.7": ("auto", "one_pass", "triton"),
        "topk:keep_rate=0.7": ("auto", "one_pass"),
        "gtp:P=8,theta=0.6,threshold=fast": ("auto", "triton"),
        "tome:r=13": ("auto", "published"),
        "gtp:P=0": ("auto",),
    }),
    ("deit_small_patch16_224", 256, 224, {
        "gtp:P=8": ("auto", "one_pass", "triton"),
        "tome:r=8": ("auto", "published"),
        "evit:keep_rate=0.7": ("auto", "one_pass"),
    }),
    ("vit_base_patch8_224", 64, 224, {
        "gtp:P=50": ("auto", "triton"),
        "tome:r=50": ("auto", "published"),
        "evit:keep_rate=0.7": ("auto", "triton"),
        "gtp:P=50,theta=0.6,threshold=fast": ("triton",),
    }),
    ("deit_small_patch16_224", 32, 896, {
        "gtp:P=150": ("auto", "triton"),
        "tome:r=150": ("auto", "published"),
    }),
    ("deit_small_patch16_224", 1, 224, {
        "gtp:P=8": ("auto", "one_pass", "triton"),
        "tome:r=8": ("auto", "published"),
        "evit:keep_rate=0.7": ("auto",),
    }),
)  # fmt: skip


def models() -> Figures:
    for name, batch, side, methods in MODELS:
        host = _Lazy(partial(Host, name, batch, side))
        for strategy, names in methods.items():
            for engine in names:
                key = {"model": name, "batch": batch, "side": side, "strategy": strategy}
                yield {**key, "engine": engine}, partial(_reduced, host, strategy, engine)
        host.drop()


class _Lazy:
    """A host that is built when it is first needed, and dropped when its figures are known."""

    def __init__(self, make: Callable[[], Host]) -> None:
        self._make, self._made = make, None

    def __call__(self) -> Host:
        if self._made is None:
            self._made = self._make()
        return self._made

    def drop(self) -> None:
        if self._made is not None:
            self._made = None
            gc.collect()
            torch.cuda.empty_cache()


class Host:
    """A dense model in bfloat16 with random weights, and its times and peak."""

    def __init__(self, name: str, batch: int, side: int) -> None:
        self.model = random_model(name, img_size=side).to(BF16)
        self.images = torch.randn(batch, 3, side, side, device=CUDA, dtype=BF16)
        with torch.inference_mode():
            self.model(self.images)
            self.peak = engines.peak_mib(self.model, self.images)
            self.replay = graphed(self.model, self.images)
        self.gmacs = tr.gmacs(self.model)


def random_model(name: str, **options: Any) -> nn.Module:
    """A timm model on the GPU, made there: random weights of a ViT-B take seconds on a CPU."""
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    model = model.to_empty(device=CUDA).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.02) if weight.ndim > 1 else weight.zero_()
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
    return model


def graphed(model: Callable[[Tensor], Any], images: Tensor) -> Callable[[Tensor], Any]:
    """The forward as a CUDA graph: what it takes without launch costs and without a compiler."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            model(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(images)
    return lambda images: graph.replay()


def _reduced(host: _Lazy, strategy: str, engine: str) -> Row:
    """A method beside the dense model, eager and as a CUDA graph."""
    dense = host()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = tr.wrap(dense.model, strategy, engine="auto" if engine == "published" else engine)
    allowed = dense.gmacs / tr.gmacs(ours)
    run: nn.Module = ours
    if engine == "published":
        run = PublishedToMe(dense.model, int(strategy.partition("=")[2]))
    with torch.inference_mode():
        run(dense.images)
        peak = engines.peak_mib(run, dense.images)
        eager = in_turns(dense.model, run, dense.images, 7)
        try:
            graph = in_turns(dense.replay, graphed(run, dense.images), dense.images, 15)
        except RuntimeError as error:
            graph = {"graph_error": str(error)[:200]}
    found = {**graph, **{f"eager_{name}": value for name, value in eager.items()}}
    for name in ("speedup", "eager_speedup"):
        if name in found:
            found[name.replace("speedup", "realised")] = found[name] / allowed
    return {**found, "allowed": allowed, "peak_mib": peak, "dense_peak_mib": dense.peak}


def in_turns(
    dense: Callable[[Tensor], Any], run: Callable[[Tensor], Any], images: Tensor, pairs: int
) -> Row:
    """Medians of pairs, the dense model right before each run, and quartiles of their ratio."""
    clock = Clock(CUDA)
    with no_collection():
        times = [(clock(dense, images), clock(run, images)) for _ in range(pairs + 2)][2:]
    low, middle, high = statistics.quantiles([base / own for base, own in times], n=4)
    return {
        "ms": 1e3 * statistics.median(own for _, own in times),
        "dense_ms": 1e3 * statistics.median(base for base, _ in times),
        "speedup": middle, "speedup_q1": low, "speedup_q3": high,
    }  # fmt: skip


def training() -> Figures:
    for strategy in ("dense", "gtp:P=8", "tome:r=8", "topk:keep_rate=0.7", "dynamicvit"):
        for engine in ("auto",) if strategy == "dense" else ("auto", "plain"):
            yield {"strategy": strategy, "engine": engine}, partial(_step, strategy, engine)


def _step(strategy: str, engine: str) -> Row:
    """A training step of DeiT-S in mixed precision, 128 images."""
    model = random_model("deit_small_patch16_224").train()
    images, classes = torch.randn(128, 3, 224, 224, device=CUDA), model.num_classes
    labels = torch.randint(classes, (128,), device=CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = model if strategy == "dense" else tr.wrap(model, strategy, engine=engine).to(CUDA)
    optimizer = torch.optim.AdamW(run.parameters(), lr=1e-4, fused=True)

    def step(images: Tensor) -> None:
        with torch.autocast("cuda", BF16):
            loss = F.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    clock = Clock(CUDA)
    times = [clock(step, images) for _ in range(7)][2:]
    finite = all(bool(weight.isfinite().all()) for weight in run.parameters())
    return {"ms": 1e3 * statistics.median(times), "peak_mib": engines.peak_mib(step, images),
            "finite": finite}  # fmt: skip


def compiled() -> Figures:
    name, batch, side, _ = MODELS[0]
    host, dense = _Lazy(partial(Host, name, batch, side)), {}
    # First what a compiler has the least work with: few blocks that differ.
    for strategy, engine in (
        ("evit:keep_rate=0.7", "auto"),
        ("gtp:P=8", "one_pass"),
        ("tome:r=8", "auto"),
        ("gtp:P=8", "auto"),
    ):
        key = {"model": name, "batch": batch, "strategy": strategy, "engine": engine}
        yield key, partial(_compile, host, dense, strategy, engine)


def _compile(host: _Lazy, known: dict[str, Any], strategy: str, engine: str) -> Row:
    """The same, both compiled as one graph with fixed shapes."""
    dense, begin = host(), time.monotonic()
    ours = tr.wrap(dense.model, strategy, engine=engine)
    with torch.inference_mode():
        if not known:
            known["dense"] = torch.compile(dense.model, fullgraph=True, dynamic=False)
            known["dense"](dense.images)
        between = time.monotonic()
        run = torch.compile(ours, fullgraph=True, dynamic=False)
        run(dense.images)
        found = {"dense_compile_s": between - begin, "compile_s": time.monotonic() - between}
        found |= in_turns(known["dense"], run, dense.images, 15)
    allowed = dense.gmacs / tr.gmacs(ours)
    return {**found, "allowed": allowed, "realised": found["speedup"] / allowed}
