"""The second half of ``tokenred compare --demo``: speed on a model of a size people use."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

__all__ = ["DEMO_FOLDER", "MAX_SECONDS", "time_deit"]

DEMO_FOLDER = "tokenred-out/demo"
_MODEL = "deit_small_patch16_224"
_STRATEGIES = (
    "gtp:P=8",
    "tome:r=8",
    "evit:keep_rate=0.7",
    "topk:keep_rate=0.7",
    "random:keep_rate=0.7",
)
_BATCH, _PAIRS = 8, 5
# On a busy machine fewer pairs, so that a demo stays one.
MAX_SECONDS = 30


def time_deit(
    console: Console,
    folder: Path,
    *,
    threads: int | None,
    seed: int,
    device: str | None,
    progress: bool,
) -> list[Path]:
    """Time the recipes' published settings on DeiT-S with random weights, and print the table.

    Speed does not hang on the values of the weights; accuracy does, and is left out.

    Returns:
        The files written.
    """
    import torch

    from tokenred.analysis.comparison import compare
    from tokenred.models import load_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = load_model(_MODEL, pretrained=False)
    result = compare(
        model,
        None,
        _STRATEGIES,
        batch_size=_BATCH,
        pairs=_PAIRS,
        warmup=1,
        max_seconds=MAX_SECONDS,
        threads=threads,
        device=device,
        seed=seed,
        name=f"{_MODEL} with random weights (no download): speed only, accuracy not shown",
        progress=progress,
    )
    written = result.to_csv(folder / "deit_small_speed.csv", overwrite=True)
    console.print(result)
    return [written]
