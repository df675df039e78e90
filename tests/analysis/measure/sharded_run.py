"""What each process of the sharding test does: two of them, with torchrun's variables."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import tokenred as tr
from tokenred.analysis import evaluate, evaluate_together
from tokenred.data import eval_transform, open_dataset

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def vit(seed: int = 0) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(**SHAPE, num_classes=10).eval()


def loader(order: list[int], **options: Any) -> DataLoader[Any]:
    logits = torch.eye(7).roll(1, 0)[order]
    return DataLoader(TensorDataset(logits, torch.tensor(order)), batch_size=2, **options)


class Same(torch.nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def scenarios(folder: Path, shard: bool | None) -> dict[str, dict[str, Any]]:
    """The same calls alone (shard False) and together."""
    model, how = vit(), {"shard": shard, "progress": True}
    fast = tr.wrap(model, "gtp:P=2")
    dataset = open_dataset("digits", transform=eval_transform(model))
    both = evaluate_together({"dense": model, "fast": fast}, dataset, batch_size=8, limit=37, **how)
    found = {
        **both,
        "few": evaluate(model, "digits", batch_size=8, limit=3, **how),
        "unreadable": evaluate(model, folder / "images", batch_size=4, **how),
        "loader": evaluate(Same(), loader([*range(7)]), **how),
        "loader limit": evaluate(Same(), loader([*range(7)]), limit=5, **how),
    }
    return {
        case: {
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in vars(evaluation).items()
        }
        for case, evaluation in found.items()
    }


def errors(folder: Path, rank: int) -> dict[str, str]:
    """Calls in which the processes differ, or one of them fails."""
    digits, images = vit(), folder / "images"
    sampler = DistributedSampler(TensorDataset(torch.eye(7)), num_replicas=2, rank=rank)
    calls: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "data": (digits, [images, folder / "fewer"][rank], {}),
        "missing": (digits, [images, "no"][rank], {}),
        "limit": (digits, "digits", {"limit": 10 + rank}),
        "weights": (vit(rank), "digits", {"limit": 4}),
        "strategy": (tr.wrap(digits, f"gtp:P={2 + rank}"), "digits", {}),
        "nan": (Same([1.0, torch.nan][rank]), loader([0, 1, 2, 3]), {}),
        "order": (Same(), loader([[0, 1, 2, 3], [3, 2, 1, 0]][rank]), {}),
        "sampler": (Same(), loader([*range(7)], sampler=sampler), {}),
        "alone": (digits, "digits", {"limit": 4, "shard": False}),
    }
    found = {}
    for case, (model, data, options) in calls.items():
        try:
            evaluate(model, data, progress=False, **options)
            found[case] = "none"
        except Exception as error:
            found[case] = f"{type(error).__name__}: {error}"
    return found


def main(folder: Path, rank: int) -> None:
    result: dict[str, Any] = {"before": dist.is_initialized()}
    if rank == 0:
        result["single"] = scenarios(folder, shard=False)
    result["several"] = scenarios(folder, shard=None)
    result["again"] = dist.is_initialized() and dist.get_world_size()
    result["errors"] = errors(folder, rank)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    # Both processes, as copies of this one, which has run nothing yet.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            main(Path(sys.argv[1]), rank)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
