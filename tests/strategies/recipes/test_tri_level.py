"""Tri-Level as a whole: by hand, counts and costs, every form."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokenred as tr
from tests.strategies.recipes.checks import images, wrapped
from tokenred.core.errors import ConfigError
from tokenred.models.rebuild import weightless
from tokenred.strategies.score_mods import TopKeys


def unrolled(vit: VisionTransformer, image: Tensor, rate: float, share: float) -> Tensor:
    """One image through the model as the method is written."""
    x = vit._pos_embed(vit.patch_embed(image))
    mask = torch.ones(1, x.shape[1], x.shape[1])
    for layer, block in enumerate(vit.blocks):
        n = x.shape[1]
        q, k, v = block.attn.qkv(block.norm1(x)).reshape(1, n, 3, 4, 8).permute(2, 0, 3, 1, 4)
        weight = (q @ k.transpose(-2, -1) / 8**0.5).exp()
        weight = weight * mask[:, None]
        attention = weight / weight.sum(dim=-1, keepdim=True)
        x = x + block.attn.proj((attention @ v).transpose(1, 2).flatten(2))
        if layer >= 1:
            score = attention[0, :, 0, 1:].mean(dim=0)
            kept = score.topk(math.ceil(rate * (n - 1))).indices.sort().values
            x = torch.cat((x[:, :1], x[:, 1 + kept]), dim=1)
            among, m = attention.mean(dim=1)[:, 1 + kept][:, :, 1 + kept], len(kept)
            order = among.sort(dim=-1, descending=True, stable=True).indices
            best = order[..., : math.ceil(share * m)]
            mask = torch.ones(1, m + 1, m + 1)
            mask[:, 1:, 1:] = torch.zeros(1, m, m).scatter(-1, best, 1)
        x = x + block.mlp(block.norm2(x))
    return vit.forward_head(vit.norm(x))


def test_it_is_the_method_by_hand() -> None:
    reduced, batch = wrapped(tr.strategy("tri-level", keep_rate=0.6, attention_rate=0.4)), images()
    with torch.no_grad():
        each = [unrolled(reduced.base, image[None], 0.6, 0.4) for image in batch]
        torch.testing.assert_close(reduced(batch), torch.cat(each))


def test_counts_and_costs() -> None:
    with weightless():
        model = timm.create_model("deit_small_patch16_224").eval()
    reduced = tr.wrap(model, "tri-level")
    assert [x.tokens_out for x in reduced.cost().layers[3::3]] == [138, 97, 68]
    assert tr.gmacs(reduced) == tr.gmacs(tr.wrap(model, "topk")) == pytest.approx(3.0, abs=0.16)


def test_composition() -> None:
    made = tr.strategy("tri-level", keep_rate=(0.5, 0.5), layers=(1, 2), attention_rate=0.5)
    assert made.score_mods == (TopKeys(0.5, (1, 2)),)
    assert made.replace(score_mods=()) == tr.strategy("topk", keep_rate=(0.5, 0.5), layers=(1, 2))
    released = tr.strategy("tri-level", reference=True)
    assert released.score_mods == (TopKeys(0.3, None, 1e-6, True),)
    assert tr.strategy("Tri-Level", reference=True, epsilon=0.0).score_mods[0].epsilon == 0
    whole = wrapped(tr.strategy("tri-level", keep_rate=1.0, attention_rate=1.0))
    assert torch.equal(whole(images()), whole.base(images()))
    with pytest.raises(ConfigError, match="attention_rate must be"):
        tr.strategy("tri-level", attention_rate=0)
