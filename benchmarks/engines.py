"""Time the attention engines against PyTorch's fused attention, on one block's q, k and v.

    python benchmarks/engines.py
    python benchmarks/engines.py --device cuda --dtype bfloat16 --shape 256x12x197x64 \
        --shape 64x12x785x64 --theta 1 0.6 --threshold exact fast --compile --out engines.json

Dense attention runs right before every run of an engine, and the engines take turns; a ratio is
the median over such pairs of engine time ÷ dense time, with its quartiles. It includes everything
that an engine does in addition: statistics, θ, ``log s``. Engines that do not support a call are
listed without figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tokenred.analysis.measure.machine import describe_machine
from tokenred.analysis.measure.timing import Clock, no_collection
from tokenred.attention import QKV, AttentionSpec, AttentionStat, Engine, PlainEngine, TiledEngine
from tokenred.attention.triton import OnePassEngine, TritonEngine
from tokenred.attention.two_calls import TwoCallsEngine
from tokenred.core.files import write_whole
from tokenred.core.state import TokenState

ENGINES: dict[str, Engine] = {
    "two_calls": TwoCallsEngine(),
    "one_pass": OnePassEngine(),
    "triton": TritonEngine(),
    "tiled": TiledEngine(),
    "plain": PlainEngine(),
}
NEEDS = {
    "gtp": (AttentionStat.diagonal("max"), AttentionStat.column_sum("max")),
    "evit": (AttentionStat.row("cls", "mean"),),
    "none": (),
}
Run = Callable[[torch.Tensor], object]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    text = "images x heads x tokens x head width (default 32x6x197x64); may be repeated"
    add("--shape", action="append", type=shape_of, metavar="BxHxNxD", help=text)
    add("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16", "float16"])
    add("--theta", nargs="+", type=float, default=[1.0, 0.6])
    add("--threshold", nargs="+", default=["exact"], choices=["exact", "fast"])
    add("--requires", nargs="+", default=["gtp"], choices=list(NEEDS))
    add("--no-bias", action="store_true", help="no log s on the keys")
    add("--engine", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    add("--device", default="cpu")
    add("--threads", type=int)
    add("--compile", action="store_true", help="compile the engines, fullgraph")
    add("--pairs", type=int, default=15)
    add("--warmup", type=int, default=3)
    add("--out", type=Path, help="JSON file to write")
    return parser.parse_args()


def shape_of(text: str) -> tuple[int, int, int, int]:
    sizes = tuple(int(size) for size in text.lower().split("x"))
    if len(sizes) != 4 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"expected BxHxNxD, got {text!r}")
    return sizes  # type: ignore[return-value]


def block(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: str, *, biased: bool
) -> tuple[QKV, torch.Tensor | None, TokenState]:
    """Inputs as in a block: three views of one projection, and token sizes as after merging."""
    b, h, n, d = shape
    torch.manual_seed(0)
    q, k, v = torch.randn(b, n, 3, h, d, device=device).to(dtype).permute(2, 0, 3, 1, 4).unbind(0)
    size = torch.randint(1, 5, (b, n), device=device).float()
    index = torch.arange(n - 1, device=device).expand(b, -1)
    state = TokenState(torch.empty(b, n, 0, device=device), index, 1, (1, n - 1), cls_index=0)
    return QKV(q, k, v, d**-0.5), size.log() if biased else None, state


def runner(
    engine: Engine, heads: QKV, request: AttentionSpec, state: TokenState, *, compiled: bool
) -> Run:
    requires = request.requires

    def run(q: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out, stats = engine(QKV(q, heads.k, heads.v, heads.scale), request, state)
        return (out, *(stats[need] for need in requires))

    return torch.compile(run, fullgraph=True, dynamic=False) if compiled else run


def peak_mib(run: Run, q: torch.Tensor) -> float | None:
    """Additional GPU memory that a run allocates."""
    if q.device.type != "cuda":
        return None
    torch.cuda.synchronize(q.device)
    torch.cuda.reset_peak_memory_stats(q.device)
    before = torch.cuda.memory_allocated(q.device)
    run(q)
    return (torch.cuda.max_memory_allocated(q.device) - before) / 2**20


def measure(
    runs: dict[str, Run], dense: Run, q: torch.Tensor, clock: Clock, pairs: int, warmup: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    with no_collection():
        for turn in range(warmup + pairs):
            for name, run in runs.items():
                pair = clock(dense, q), clock(run, q)
                if turn >= warmup:
                    times[name].append(pair)
    for name, measured in times.items():
        low, middle, high = statistics.quantiles([own / base for base, own in measured], n=4)
        yield name, {
            "ms": 1e3 * statistics.median(own for _, own in measured),
            "dense_ms": 1e3 * statistics.median(base for base, _ in measured),
            "ratio": middle, "ratio_low": low, "ratio_high": high,
            "peak_mib": peak_mib(runs[name], q), "dense_peak_mib": peak_mib(dense, q),
        }  # fmt: skip


def settings(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    shapes = args.shape or [(32, 6, 197, 64)]
    for shape, dtype, requires, theta, threshold in product(
        shapes, args.dtype, args.requires, args.theta, args.threshold
    ):
        if theta < 1 or threshold == args.threshold[0]:  # θ = 1 has no threshold to find
            yield {"shape": shape, "dtype": dtype, "requires": requires, "theta": theta,
                   "threshold": threshold if theta < 1 else ""}  # fmt: skip


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    clock, rows = Clock(torch.device(args.device)), []
    print(f"{'shape':>16} {'dtype':>9} {'requires':>8} {'θ':>4} {'find':>5} "
          f"{'engine':>10} {'ms':>8} {'÷ dense':>8}")  # fmt: skip
    for cell in settings(args):
        dtype = getattr(torch, cell["dtype"])
        heads, bias, state = block(cell["shape"], dtype, args.device, biased=not args.no_bias)
        request = AttentionSpec(
            NEEDS[cell["requires"]], bias, cell["theta"], cell["threshold"] or "exact"
        )

        def dense(q: torch.Tensor, heads: QKV = heads) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, heads.k, heads.v, scale=heads.scale)

        with torch.inference_mode():
            able = {name: ENGINES[name].supports(heads, request) for name in args.engine}
            runs = {
                name: runner(ENGINES[name], heads, request, state, compiled=args.compile)
                for name in args.engine
                if able[name]
            }
            found = dict(measure(runs, dense, heads.q, clock, args.pairs, args.warmup))
        name = "x".join(map(str, cell["shape"]))
        for engine in args.engine:
            own = found.get(engine, {})
            rows.append({**cell, "engine": engine, "supported": able[engine], **own})
            figures = f"{own['ms']:8.2f} {own['ratio']:8.2f}" if own else "       -        -"
            print(f"{name:>16} {cell['dtype']:>9} {cell['requires']:>8} {cell['theta']:>4g} "
                  f"{cell['threshold']:>5} {engine:>10} {figures}", flush=True)  # fmt: skip
    if args.out:
        whole = {"machine": describe_machine(args.device), "compiled": args.compile,
                 "bias": not args.no_bias, "pairs": args.pairs, "rows": rows}  # fmt: skip
        text = json.dumps(whole, indent=1) + "\n"
        write_whole(args.out, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
