"""ATS as a whole: a padded batch is its images, costs by image, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tests.strategies.recipes.checks import SMALL, check_a_batch_is_its_images, images, wrapped
from tokenred.core.errors import ConfigError
from tokenred.strategies.selectors.inverse_transform import sampled

VARIANTS: dict[str, dict[str, Any]] = {
    "at most": {"max_tokens": 6},
    "in steps": {"max_tokens": (9, 5), "layers": (0, 2)},
    "proportional": {"proportional_attention": True},
    "fewer keys": {"score_mods": ("TopKeys",)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_images(variant: str) -> None:
    check_a_batch_is_its_images(tr.strategy("ats", **VARIANTS[variant]))


def unrolled(vit: VisionTransformer, image: Tensor) -> tuple[Tensor, list[int]]:
    """One image through the model, sampled as the paper says, without padding."""
    x = vit._pos_embed(vit.patch_embed(image))
    counts = []
    for layer, block in enumerate(vit.blocks):
        y, n = block.norm1(x), x.shape[1]
        q, k, v = block.attn.qkv(y).reshape(1, n, 3, 4, 8).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) / 8**0.5).softmax(dim=-1)
        rows = torch.arange(n)
        if layer >= 1:
            length = v.transpose(1, 2).flatten(2).norm(dim=-1)
            score = (attention[:, :, 0].sum(dim=1) * length)[:, 1:]
            chosen = sampled(score, torch.ones_like(score, dtype=torch.bool), 16)
            rows = torch.cat((torch.zeros(1, dtype=torch.long), 1 + chosen[0].nonzero().flatten()))
        # Only the sampled rows of the map, over all keys and values.
        out = (attention[:, :, rows] @ v).transpose(1, 2).flatten(2)
        x = x[:, rows] + block.attn.proj(out)
        x = x + block.mlp(block.norm2(x))
        counts.append(len(rows) - 1)
    return vit.forward_head(vit.norm(x)), counts


def test_it_is_the_method_by_hand() -> None:
    reduced, batch = wrapped("ats"), images(b=4)
    with torch.no_grad():
        logits, trace = reduced.run_with_trace(batch)
        each = [unrolled(reduced.base, image[None]) for image in batch]
    torch.testing.assert_close(logits, torch.cat([found for found, _ in each]))
    alive = torch.stack(trace.alive_per_layer, dim=1).tolist()
    assert alive == [counts for _, counts in each]
    assert len({tuple(counts) for counts in alive}) > 1  # the images differ
    assert trace.tokens_per_layer == tuple(max(layer) for layer in zip(*alive, strict=True))
    # Padding is nowhere on the grid, and of size 0 to the end.
    assert [(row >= 0).sum().item() for row in trace.index] == [row[-1] for row in alive]


def test_the_closed_form_is_an_upper_bound() -> None:
    from tokenred.analysis.measure.image_costs import adaptive_cost

    reduced = wrapped("ats")
    assert tr.gmacs(reduced) == tr.gmacs(reduced.base)
    assert adaptive_cost(reduced, images()).gmacs.max() < tr.gmacs(reduced)


def test_refused() -> None:
    bare = VisionTransformer(**SMALL, class_token=False, global_pool="avg")
    with pytest.raises(ConfigError, match="attention of a CLS token"):
        tr.wrap(bare, "ats")
    with pytest.raises(ConfigError, match="needs the same number for all"):
        tr.wrap(VisionTransformer(**SMALL), tr.strategy("ats", fuser="propagate"))
    with pytest.raises(ConfigError, match=r"theta=0\.7 would count the padding"):
        tr.wrap(VisionTransformer(**SMALL), tr.strategy("ats", theta=0.7))
    # A head of all tokens hands on the padding, which its user sees by the size of the trace.
    assert tr.wrap(VisionTransformer(**SMALL | {"num_classes": 0}, global_pool=""), "ats")
