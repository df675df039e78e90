"""What docs/compatibility.md promises of models spread over processes, and of fvcore.

Tracing and transforming are in tests/core/test_capture.py.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import tokenred as tr
from tests.backbones.forms import images_for, vit

GTP = tr.strategy("gtp", P=2, M=3)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, of one process


@pytest.fixture
def group(tmp_path: Any) -> Iterator[None]:
    if not dist.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _trained(model: Any, images: Tensor) -> list[Tensor]:
    model(images).square().sum().backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    return [g.full_tensor() if hasattr(g, "full_tensor") else g for g in found]


def test_distributed_data_parallel(group: None) -> None:
    expected = _trained(tr.wrap(vit(), GTP), images_for(vit()))
    spread = nn.parallel.DistributedDataParallel(tr.wrap(vit(), GTP))
    found = _trained(spread, images_for(vit()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("when", ["before", "after"])
def test_fsdp2_block_by_block(group: None, when: str) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("this PyTorch has no fully_shard")
    mesh = dist.init_device_mesh("cpu", (1,))
    images, model = images_for(vit()), vit()
    expected = tr.wrap(vit(), GTP)(images)
    reduced = tr.wrap(model, GTP) if when == "after" else None
    for block in model.blocks:
        fsdp.fully_shard(block, mesh=mesh)
    reduced = tr.wrap(model, GTP) if reduced is None else reduced
    torch.testing.assert_close(reduced(images), expected)
    assert all(g.isfinite().all() for g in _trained(reduced, images))


def test_fvcore_counts_it() -> None:
    counting = pytest.importorskip("fvcore.nn")
    counts = counting.FlopCountAnalysis(tr.wrap(vit(), GTP), images_for(vit(), 1))
    assert counts.total() > 0
