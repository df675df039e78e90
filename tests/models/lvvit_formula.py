"""LV-ViT's formula and the names of its weights, written down apart from the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenred.models.lvvit import LVViT

__all__ = ["by_hand", "names"]


def names(depth: int) -> set[str]:
    names = {"cls_token", "pos_embed"}
    names |= {f"patch_embed.conv{i}.weight" for i in (1, 2, 3)}
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names |= {f"patch_embed.bn{i}.{what}" for i in (1, 2, 3) for what in statistics}
    both = ["patch_embed.proj", "norm", "head", "aux_head"]
    for i in range(depth):
        names.add(f"blocks.{i}.attn.qkv.weight")
        both += [f"blocks.{i}.{n}" for n in ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")]
    return names | {f"{name}.{what}" for name in both for what in ("weight", "bias")}


def by_hand(model: LVViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of CLS and of the patches, straight from the weights."""
    w = model.state_dict()
    x = images
    for i, (stride, padding) in enumerate(((2, 3), (1, 1), (1, 1)), start=1):
        x = F.conv2d(x, w[f"patch_embed.conv{i}.weight"], stride=stride, padding=padding)
        mean, var, scale, shift = (
            w[f"patch_embed.bn{i}.{n}"][:, None, None]
            for n in ("running_mean", "running_var", "weight", "bias")
        )
        x = ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp_min(0)
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=8)
    x = x.flatten(2).mT
    b, n, c = x.shape
    x = torch.cat((w["cls_token"].expand(b, 1, c), x), dim=1) + w["pos_embed"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    h = model.blocks[0].attn.num_heads
    for i in range(len(model.blocks)):
        at = f"blocks.{i}"
        qkv = linear(norm(x, f"{at}.norm1"), f"{at}.attn.qkv").view(b, n + 1, 3, h, c // h)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = ((q @ k.mT) / (c // h) ** 0.5).softmax(-1) @ v
        x = x + linear(attended.transpose(1, 2).reshape(b, n + 1, c), f"{at}.attn.proj") / 2
        hidden = F.gelu(linear(norm(x, f"{at}.norm2"), f"{at}.mlp.fc1"))
        x = x + linear(hidden, f"{at}.mlp.fc2") / 2
    x = norm(x, "norm")
    return linear(x[:, 0], "head"), linear(x[:, 1:], "aux_head")
