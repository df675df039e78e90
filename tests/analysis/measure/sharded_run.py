"""What each process of the sharding test does: two of them, with torchrun's variables.

``torchrun --nproc-per-node=2 sharded_run.py FOLDER`` works as well, and imports everything twice.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import tokenred as tr
from tokenred.analysis import evaluate, evaluate_together, lower_resolution
from tokenred.analysis.measure.accuracy import Evaluation
from tokenred.data import eval_transform, open_dataset


def fields(found: Evaluation) -> dict[str, Any]:
    arrays = ("index", "label", "prediction", "rank")
    return {name: getattr(found, name).tolist() for name in arrays} | {
        "skipped": found.skipped,
        "classes": found.classes,
        "seconds": found.seconds,
    }


def error_of(work: Callable[[], Any]) -> str:
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def loader(order: list[int], **options: Any) -> DataLoader[Any]:
    logits = torch.eye(7).roll(1, 0)[order]
    return DataLoader(TensorDataset(logits, torch.tensor(order)), batch_size=2, **options)


class Same(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def scenarios(folder: Path, shard: bool | None) -> dict[str, Any]:
    """The same calls alone (shard False) and together."""
    digits = tr.models.load_model("digits")
    how: dict[str, Any] = {"progress": True, "shard": shard}
    fast = tr.wrap(digits, tr.strategy("gtp", P=4))
    dataset = open_dataset("digits", transform=eval_transform(digits))
    together = evaluate_together(
        {"dense": digits, "fast": fast}, dataset, batch_size=16, limit=51, **how
    )
    return {
        "limit": fields(evaluate(digits, "digits", batch_size=8, limit=37, **how)),
        "few": fields(evaluate(digits, "digits", batch_size=8, limit=3, **how)),
        "unreadable": fields(evaluate(digits, folder / "images", batch_size=4, **how)),
        "dense": fields(together["dense"]),
        "fast": fields(together["fast"]),
        "loader": fields(evaluate(Same(), loader([0, 1, 2, 3, 4, 5, 6]), **how)),
        "loader limit": fields(evaluate(Same(), loader([0, 1, 2, 3, 4, 5, 6]), limit=5, **how)),
    }


def errors(folder: Path, rank: int) -> dict[str, str]:
    """Calls in which the processes differ, or one of them fails."""
    digits = tr.models.load_model("digits")
    quiet: dict[str, Any] = {"progress": False}
    other = tr.models.digits_vit(pretrained=False)
    where = [folder / "images", folder / "fewer"][rank]
    sampler = DistributedSampler(TensorDataset(torch.eye(7)), num_replicas=2, rank=rank)
    orders = [[0, 1, 2, 3], [3, 2, 1, 0]]
    return {
        "data": error_of(lambda: evaluate(digits, where, **quiet)),
        "missing": error_of(lambda: evaluate(digits, [folder / "images", "no"][rank], **quiet)),
        "limit": error_of(lambda: evaluate(digits, "digits", limit=10 + rank, **quiet)),
        "weights": error_of(lambda: evaluate([digits, other][rank], "digits", limit=4, **quiet)),
        "strategy": error_of(
            lambda: evaluate(tr.wrap(digits, tr.strategy("gtp", P=2 + rank)), "digits", **quiet)
        ),
        "size": error_of(
            lambda: evaluate(
                lower_resolution(digits, [(16, 16), (24, 24)][rank]), "digits", **quiet
            )
        ),
        "nan": error_of(lambda: nan_of_the_second(rank)),
        "order": error_of(lambda: evaluate(Same(), loader(orders[rank]), **quiet)),
        "sampler": error_of(
            lambda: evaluate(Same(), loader([*range(7)], sampler=sampler), **quiet)
        ),
        "alone": error_of(lambda: evaluate(digits, "digits", limit=4, shard=False, **quiet)),
    }


def nan_of_the_second(rank: int) -> None:
    """The same model everywhere, and NaN from one process only."""

    class Fails(Same):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.nan if rank == 1 else x

    evaluate(Fails(), loader([0, 1, 2, 3]), progress=False)


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    result: dict[str, Any] = {"before": dist.is_initialized()}
    if rank == 0:
        result["single"] = scenarios(folder, shard=False)
    result["several"] = scenarios(folder, shard=None)
    result["again"] = dist.is_initialized() and dist.get_world_size()
    result["errors"] = errors(folder, rank)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(result))


def start_two(folder: Path) -> int:
    """Both processes, as copies of this one, which has run nothing yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            main(folder)
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    if "RANK" in os.environ:
        main(Path(sys.argv[1]))
    else:
        sys.exit(start_two(Path(sys.argv[1])))
