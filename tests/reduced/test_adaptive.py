"""Costs of images that keep different numbers of tokens."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tokenred.core.errors import InputError


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=2, num_classes=5,
        dynamic_img_size=True,
    ).eval()  # fmt: skip


def test_counts_are_those_of_the_trace(model: VisionTransformer) -> None:
    reduced, images = tr.wrap(model, "ats"), torch.randn(3, 3, 32, 32)
    _, trace = reduced.run_with_trace(images)
    counts = reduced.alive_counts(images)
    assert counts[:, 0].tolist() == [16] * 3
    assert torch.equal(counts[:, 1:], torch.stack(trace.alive_per_layer, dim=1))


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_of_fixed_counts_it_is_the_closed_form(
    model: VisionTransformer, size: tuple[int, int]
) -> None:
    reduced = tr.wrap(model, "topk")
    counts = reduced.alive_counts(torch.randn(2, 3, *size))
    assert counts[0].tolist() == counts[1].tolist()
    assert reduced.cost(size, counts[0].tolist()) == reduced.cost(size)


def test_by_hand(model: VisionTransformer) -> None:
    cost = tr.wrap(model, "ats").cost(alive=[16, 16, 9, 4, 1])
    blocks = [4 * N * 24**2 + 2 * N**2 * 24 + 8 * n * 24**2
              for N, n in ((17, 17), (17, 10), (10, 5), (5, 2))]  # fmt: skip
    assert [layer.macs for layer in cost.layers] == blocks
    assert cost.gmacs == pytest.approx((sum(blocks) + 16 * 3 * 64 * 24 + 24 * 5) / 1e9)


@pytest.mark.parametrize("counts", [[16, 16, 9, 4], [16, 9, 10, 4, 4]])
def test_refused(model: VisionTransformer, counts: list[int]) -> None:
    with pytest.raises(InputError, match="expected 5 counts that never grow"):
        tr.wrap(model, "ats").cost(alive=counts)
