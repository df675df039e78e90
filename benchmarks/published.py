"""ToMe as its paper describes it and public programs run it: the attention map is held in memory.

Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, section 3. Written from the paper, as
the baseline of GPU timings: what a user of timm gets without an engine for statistics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PublishedToMe(nn.Module):
    """A timm VisionTransformer that merges ``r`` tokens in each block, between attention and MLP.

    Args:
        model: with a class token; its blocks are timm's ``Block``.
        r: tokens to merge in a block.
    """

    def __init__(self, model: nn.Module, r: int) -> None:
        super().__init__()
        self.model: Any = model
        self.r = r

    def forward(self, images: Tensor) -> Any:
        model = self.model
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        size = None
        for block in model.blocks:
            y, keys = _attention(block.attn, block.norm1(x), size)
            x = x + block.drop_path1(block.ls1(y))
            x, size = _merge(x, size, keys, self.r)
            x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        return model.forward_head(model.norm(x))


def _attention(attn: Any, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Proportional attention (Eq. 1), and the keys, averaged over heads."""
    b, n, c = x.shape
    q, k, v = attn.qkv(x).reshape(b, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = attn.q_norm(q), attn.k_norm(k)
    logits = (q * attn.scale) @ k.transpose(-2, -1)
    if size is not None:
        logits = logits + size.log()[:, None, None, :, 0]
    out = (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
    return attn.proj_drop(attn.proj(out)), k.mean(dim=1)


def _merge(x: Tensor, size: Tensor | None, keys: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Bipartite soft matching: alternate tokens, the best partner of each, the r best pairs."""
    r = min(r, (x.shape[1] - 1) // 2)
    size = torch.ones_like(x[..., :1]) if size is None else size
    if r <= 0:
        return x, size
    unit = keys / keys.norm(dim=-1, keepdim=True)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(-2, -1)
    scores[:, 0] = -torch.inf  # the class token stays
    best, partner = scores.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)[..., None]
    merged, rest = order[:, :r], order[:, r:].sort(dim=1).values
    into = partner[..., None].gather(1, merged)

    def summed(tokens: Tensor) -> Tensor:
        c = tokens.shape[-1]
        a, b = tokens[:, ::2], tokens[:, 1::2]
        moved = a.gather(1, merged.expand(-1, -1, c))
        stays = a.gather(1, rest.expand(-1, -1, c))
        return torch.cat((stays, b.scatter_reduce(1, into.expand(-1, -1, c), moved, "sum")), dim=1)

    total = summed(size)
    return summed(x * size) / total, total
